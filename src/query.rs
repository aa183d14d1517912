//! `wirespan query`: SQL in, rows out.

use crate::api::{Api, ServerArgs};
use crate::table::Table;
use clap::ValueEnum;
use serde::Deserialize;
use serde_json::{Value, json};
use std::io::{Write, stdout};

/// What `wirespan query` is asked for.
#[derive(clap::Args)]
pub struct QueryArgs {
    /// ClickHouse SQL over the tables l7_log, trace_log, flow_log, app_metrics_1s/1m, net_metrics_1s/1m, path_metrics_1s/1m and
    /// agent_stats
    sql: String,

    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,

    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// Aligned columns
    Table,
    /// One JSON object per row
    Jsonl,
    /// Comma separated, RFC 4180
    Csv,
}

#[derive(Deserialize)]
struct Answer {
    columns: Vec<Column>,
    rows: Vec<Vec<Value>>,
}

#[derive(Deserialize)]
struct Column {
    name: String,
    #[serde(rename = "type")]
    type_name: String,
}

/// Runs the command.
pub fn run(args: &QueryArgs) -> anyhow::Result<()> {
    let answer: Answer = Api::new(&args.server).post("/api/sql", &json!({ "sql": args.sql }))?;
    let mut out = stdout().lock();
    match args.format {
        Format::Table => write!(out, "{}", table(&answer))?,
        Format::Jsonl => {
            for row in &answer.rows {
                let names = answer.columns.iter().map(|column| column.name.clone());
                let object: serde_json::Map<_, _> = names.zip(row.iter().cloned()).collect();
                writeln!(out, "{}", Value::Object(object))?;
            }
        }
        Format::Csv => {
            let header: Vec<String> = answer.columns.iter().map(|column| quoted(&column.name)).collect();
            writeln!(out, "{}", header.join(","))?;
            for row in &answer.rows {
                let cells: Vec<String> = row.iter().map(|value| quoted(&text(value))).collect();
                writeln!(out, "{}", cells.join(","))?;
            }
        }
    }
    Ok(())
}

fn table(answer: &Answer) -> Table {
    let mut table = Table::new(answer.columns.iter().map(|column| (column.name.clone(), column.is_number())));
    for row in &answer.rows {
        table.row(row.iter().map(text));
    }
    table
}

impl Column {
    fn is_number(&self) -> bool {
        let bare = self.type_name.trim_start_matches("Nullable(");
        ["UInt", "Int", "Float", "Decimal"].iter().any(|number| bare.starts_with(number))
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn quoted(text: &str) -> String {
    match text.contains(['"', ',', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_aligned_to_the_right() {
        let answer: Answer = serde_json::from_value(json!({
            "columns": [{"name": "server", "type": "String"}, {"name": "n", "type": "Nullable(UInt64)"}],
            "rows": [["10.0.0.1", 7], ["10.0.0.1\n", 1234], ["x", null]],
        }))
        .unwrap();
        assert_eq!(table(&answer).to_string(), "server        n\n10.0.0.1      7\n10.0.0.1   1234\nx\n");
    }

    #[test]
    fn csv_quotes_where_it_has_to() {
        assert_eq!([quoted("a"), quoted("a,\"b\"")], ["a".to_owned(), "\"a,\"\"b\"\"\"".to_owned()]);
    }
}
