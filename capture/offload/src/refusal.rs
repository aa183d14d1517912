//! The kernel's or a driver's no.

use std::io;

/// Why something cannot be read or changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    code: i32,
    words: Option<String>,
}

impl Refusal {
    /// An error number, and what the kernel said besides.
    pub fn new(code: i32, words: Option<String>) -> Self {
        Self { code, words }
    }

    /// An answer that is none.
    pub fn nonsense() -> Self {
        Self::new(libc::EBADMSG, Some("its answer makes no sense".to_owned()))
    }

    /// A no that is known without asking.
    pub fn because(words: impl Into<String>) -> Self {
        Self::new(0, Some(words.into()))
    }

    /// Whether this is about missing privilege, which changes what to do.
    pub fn is_privilege(&self) -> bool {
        matches!(self.code, libc::EPERM | libc::EACCES)
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(code) => Self::new(code, None),
            None => Self::because(error.to_string()),
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let meaning = match self.code {
            0 => return f.write_str(self.words.as_deref().unwrap_or("refused")),
            libc::EOPNOTSUPP | libc::ENOTTY => "not supported".to_owned(),
            libc::ENOENT => "not in this kernel".to_owned(),
            libc::EPERM | libc::EACCES => "not permitted without CAP_NET_ADMIN".to_owned(),
            code => {
                // "Device or resource busy (os error 16)": the number says nothing more.
                let text = io::Error::from_raw_os_error(code).to_string();
                text.split(" (os error").next().unwrap_or_default().to_lowercase()
            }
        };
        match &self.words {
            Some(words) => write!(f, "{meaning}: {words}"),
            None => f.write_str(&meaning),
        }
    }
}

impl serde::Serialize for Refusal {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
