//! Literals and values out of statements and commands. (being written)
