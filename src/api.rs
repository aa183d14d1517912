//! Asks a running wirespan over its HTTP API, for the commands that show answers in the terminal.

use anyhow::{Context, bail};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use serde::de::DeserializeOwned;
use std::time::Duration;

/// Where the API is.
#[derive(clap::Args, Clone)]
pub struct ServerArgs {
    /// Address of a running `wirespan up`
    #[arg(long, value_name = "URL", env = "WIRESPAN_SERVER", default_value = "http://127.0.0.1:7700")]
    server: String,
}

/// The API of one server.
pub struct Api {
    base: String,
    agent: ureq::Agent,
}

impl Api {
    pub fn new(args: &ServerArgs) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(5)))
            .timeout_global(Some(Duration::from_secs(60)))
            .build();
        Self { base: args.server.trim_end_matches('/').to_owned(), agent: config.into() }
    }

    pub fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let response = self.agent.get(format!("{}{path}", self.base)).call();
        self.answer(response)
    }

    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &serde_json::Value) -> anyhow::Result<T> {
        let response = self.agent.post(format!("{}{path}", self.base)).send_json(body);
        self.answer(response)
    }

    fn answer<T: DeserializeOwned>(
        &self,
        response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> anyhow::Result<T> {
        let mut response = match response {
            Ok(response) => response,
            Err(error) => {
                bail!(
                    "nothing answers at {} ({error}); start `wirespan up -i INTERFACE`, or say where with --server",
                    self.base
                )
            }
        };
        let status = response.status();
        let body =
            response.body_mut().with_config().limit(1 << 30).read_to_vec().context("the answer broke off")?;
        if status.is_success() {
            return serde_json::from_slice(&body).context("the answer is not what this version expects");
        }
        let sentence = serde_json::from_slice::<serde_json::Value>(&body).ok();
        match sentence.as_ref().and_then(|value| value["error"].as_str()) {
            Some(sentence) => bail!("{sentence}"),
            None => bail!("{} answered {status}", self.base),
        }
    }
}

/// All but the unreserved characters of RFC 3986, 2.3.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A value as part of a URL.
pub fn escape(value: &str) -> PercentEncode<'_> {
    utf8_percent_encode(value, RESERVED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_user_gives_is_escaped() {
        assert_eq!(escape("a-b/ü?").to_string(), "a-b%2F%C3%BC%3F");
    }
}
