//! Taps in the store, so that SQL can show their names: `dictGet('wirespan.taps', 'name', tap_id)`.

use wirespan_dataplane::Tap;
use wirespan_store::{Client, StoreError};

/// Replaces the taps in the store's dictionary `wirespan.taps` (id to name, kind, device, port and site). Queries see the
/// old taps or the new ones, never a part: the dictionary is loaded again when all are written.
pub async fn push_taps(client: &Client, taps: &[Tap]) -> Result<(), StoreError> {
    client.execute("TRUNCATE TABLE tap_list").await?;
    if !taps.is_empty() {
        client.insert("tap_list", "JSONEachRow", rows(taps).into(), None).await?;
    }
    client.execute("SYSTEM RELOAD DICTIONARY taps").await
}

fn rows(taps: &[Tap]) -> Vec<u8> {
    let mut out = Vec::new();
    for tap in taps {
        // Writing to memory does not fail, nor does a row of numbers and texts.
        let _ = serde_json::to_writer(&mut out, tap);
        out.push(b'\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use wirespan_dataplane::Taps;

    #[test]
    fn a_tap_is_one_line() {
        let text = "taps:\n- {name: a, kind: vpc-mirror, site: x, match: {vlan: 1}}\n- {name: b, id: 9, kind: nic, match: {vlan: 2}}\n";
        let lines = String::from_utf8(rows(&Taps::parse(text).unwrap().taps)).unwrap();
        assert_eq!(
            lines,
            "{\"id\":1,\"name\":\"a\",\"kind\":\"vpc-mirror\",\"device\":\"\",\"port\":\"\",\"site\":\"x\"}\n\
             {\"id\":9,\"name\":\"b\",\"kind\":\"nic\",\"device\":\"\",\"port\":\"\",\"site\":\"\"}\n"
        );
    }
}
