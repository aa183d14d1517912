//! Names of addresses in the store, so that SQL can show them: `dictGet('wirespan.names', 'name', server_ip)`.

use serde::Serialize;
use wirespan_controller::Names;
use wirespan_store::{Client, StoreError};

/// Replaces the names in the store's dictionary `wirespan.names` (address to name). Queries see the old names or the new
/// ones, never a part: the dictionary is loaded again when all are written.
pub async fn push_names(client: &Client, names: &Names) -> Result<(), StoreError> {
    client
        .execute("CREATE TABLE IF NOT EXISTS name_list (ip IPv6, name String) ENGINE = MergeTree ORDER BY ip")
        .await?;
    // By its address: the name `localhost` has none where there is no IPv4 address but loopback's.
    client
        .execute(
            "CREATE OR REPLACE DICTIONARY names (ip IPv6, name String DEFAULT '') PRIMARY KEY ip \
             SOURCE(CLICKHOUSE(HOST '127.0.0.1' DB 'wirespan' TABLE 'name_list')) LAYOUT(COMPLEX_KEY_HASHED()) LIFETIME(MIN 0 MAX 0)",
        )
        .await?;
    client.execute("TRUNCATE TABLE name_list").await?;
    if !names.is_empty() {
        client.insert("name_list", "JSONEachRow", rows(names).into(), None).await?;
    }
    client.execute("SYSTEM RELOAD DICTIONARY names").await
}

fn rows(names: &Names) -> Vec<u8> {
    #[derive(Serialize)]
    struct Row<'a> {
        ip: std::net::IpAddr,
        name: &'a str,
    }
    let mut out = Vec::new();
    for (ip, name) in names.sorted() {
        // Writing to memory does not fail, nor does a row of an address and a text.
        let _ = serde_json::to_writer(&mut out, &Row { ip, name });
        out.push(b'\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_line() {
        let mut names = Names::default();
        names.add_text("2001:db8::1 six\n10.0.0.2 web\n");
        let text = String::from_utf8(rows(&names)).unwrap();
        assert_eq!(
            text,
            "{\"ip\":\"10.0.0.2\",\"name\":\"web\"}\n{\"ip\":\"2001:db8::1\",\"name\":\"six\"}\n"
        );
    }
}
