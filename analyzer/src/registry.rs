//! Named counters of every part of the process, shown at `/metrics` in the Prometheus text format (version 0.0.4).

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use wirespan_records::Text;

/// How a value behaves over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
}

/// A value that its owner adds to or sets, from any thread, without a lock.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Replaces the value, for totals that are kept elsewhere and for gauges.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Names and values that tell the values of one metric apart.
pub type Labels = Vec<(&'static str, Text)>;

#[derive(Debug)]
struct Family {
    help: &'static str,
    kind: Kind,
    values: BTreeMap<Labels, Counter>,
}

/// The counters of one process. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Registry(Arc<Mutex<BTreeMap<&'static str, Family>>>);

/// One value, as it is written to the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Name of the metric.
    pub name: &'static str,
    /// Its labels.
    pub labels: Labels,
    /// The value.
    pub value: u64,
}

impl Registry {
    /// The counter of this name and these labels; made when it is asked for the first time.
    pub fn counter(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
    ) -> Counter {
        self.register(name, help, Kind::Counter, labels)
    }

    /// The same for a value that also goes down.
    pub fn gauge(&self, name: &'static str, help: &'static str, labels: &[(&'static str, &str)]) -> Counter {
        self.register(name, help, Kind::Gauge, labels)
    }

    fn register(
        &self,
        name: &'static str,
        help: &'static str,
        kind: Kind,
        labels: &[(&'static str, &str)],
    ) -> Counter {
        let mut families = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let family = families.entry(name).or_insert_with(|| Family { help, kind, values: BTreeMap::new() });
        let labels = labels.iter().map(|&(key, value)| (key, value.into())).collect();
        family.values.entry(labels).or_default().clone()
    }

    /// Every value, by name and labels.
    pub fn samples(&self) -> Vec<Sample> {
        let families = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        families
            .iter()
            .flat_map(|(&name, family)| {
                family.values.iter().map(move |(labels, value)| Sample {
                    name,
                    labels: labels.clone(),
                    value: value.get(),
                })
            })
            .collect()
    }

    /// The text that Prometheus scrapes.
    pub fn render(&self) -> String {
        let families = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = String::new();
        for (name, family) in families.iter() {
            let kind = if family.kind == Kind::Counter { "counter" } else { "gauge" };
            let _ = writeln!(out, "# HELP {name} {}\n# TYPE {name} {kind}", family.help);
            for (labels, value) in &family.values {
                let _ = match label_text(labels).as_str() {
                    "" => writeln!(out, "{name} {}", value.get()),
                    labels => writeln!(out, "{name}{{{labels}}} {}", value.get()),
                };
            }
        }
        out
    }
}

/// `a="1",b="2"` with the escapes of the format.
fn label_text(labels: &Labels) -> String {
    let mut out = String::new();
    for (key, value) in labels {
        let comma = if out.is_empty() { "" } else { "," };
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(out, "{comma}{key}=\"{value}\"");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_the_prometheus_text_format() {
        let registry = Registry::default();
        registry.counter("wirespan_rows_total", "Rows.", &[("table", "l7_log")]).add(3);
        registry.counter("wirespan_rows_total", "Rows.", &[("table", "a\"b\\c\n")]).add(1);
        registry.gauge("wirespan_queue_rows", "Rows that wait.", &[]).set(7);
        let expected = "# HELP wirespan_queue_rows Rows that wait.\n# TYPE wirespan_queue_rows gauge\n\
             wirespan_queue_rows 7\n# HELP wirespan_rows_total Rows.\n# TYPE wirespan_rows_total counter\n\
             wirespan_rows_total{table=\"a\\\"b\\\\c\\n\"} 1\nwirespan_rows_total{table=\"l7_log\"} 3\n";
        assert_eq!(registry.render(), expected);
    }

    #[test]
    fn the_same_name_and_labels_are_the_same_counter() {
        let registry = Registry::default();
        let one = registry.clone().counter("x_total", "X.", &[("a", "1"), ("b", "2")]);
        one.add(2);
        registry.counter("x_total", "X.", &[("a", "1"), ("b", "2")]).add(3);
        assert_eq!(one.get(), 5);
        assert_eq!(
            registry.samples(),
            [Sample { name: "x_total", labels: vec![("a", "1".into()), ("b", "2".into())], value: 5 }]
        );
    }
}
