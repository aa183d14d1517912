//! Rows in aligned columns, and what is shown in them.

/// A table for the terminal.
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

struct Column {
    name: String,
    right: bool,
}

impl Table {
    /// Columns by name, and whether they are aligned to the right.
    pub fn new(columns: impl IntoIterator<Item = (String, bool)>) -> Self {
        let columns = columns.into_iter().map(|(name, right)| Column { name, right }).collect();
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row; control characters are shown as spaces.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| plain(&cell)).collect());
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let header: Vec<String> = self.columns.iter().map(|column| column.name.clone()).collect();
        let lines = || std::iter::once(&header).chain(&self.rows);
        let width =
            |column: usize| lines().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
        let widths: Vec<usize> = (0..header.len()).map(|column| width(column).unwrap_or(0)).collect();
        for row in lines() {
            let mut line = String::new();
            for ((cell, width), column) in row.iter().zip(&widths).zip(&self.columns) {
                match column.right {
                    true => line.push_str(&format!("{cell:>width$}  ")),
                    false => line.push_str(&format!("{cell:<width$}  ")),
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Control characters become spaces: what comes from the network must not command the terminal.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Three digits and a unit.
pub fn duration(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} us"),
        1_000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        _ => format!("{:.1} s", us as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_the_unit_that_fits() {
        assert_eq!([0, 999, 1_500, 2_000_000].map(duration), ["0 us", "999 us", "1.5 ms", "2.0 s"]);
    }

    #[test]
    fn aligns_left_and_right() {
        let mut table = Table::new([("name".into(), false), ("rate".into(), true)]);
        table.row(["nginx".into(), "1.5".into()]);
        table.row(["a\n".into(), "200".into()]);
        assert_eq!(table.to_string(), "name   rate\nnginx   1.5\na       200\n");
    }
}
