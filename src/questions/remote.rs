use reqwest::redirect::Policy;
use reqwest::{Client, Method, RequestBuilder, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::ask::AskError;
use super::{Progress, QuestionError};
use crate::embedded::Occupant;

/// An open shop's operator listener.
pub struct Remote {
    client: Client,
    occupant: Occupant,
}

impl Remote {
    /// # Errors
    /// [`AskError::Unreachable`] if no HTTP client can be made.
    pub fn new(occupant: Occupant) -> Result<Self, AskError> {
        // The token is for this machine: no proxy gets it, and nobody to whom an answer would redirect.
        match Client::builder().no_proxy().redirect(Policy::none()).build() {
            Ok(client) => Ok(Self { client, occupant }),
            Err(source) => {
                let (pid, url) = (occupant.pid, occupant.operator_url);
                Err(AskError::Unreachable { pid, url, source })
            }
        }
    }

    /// Where the shop is.
    #[must_use]
    pub fn place(&self) -> String {
        let Occupant { pid, url, .. } = &self.occupant;
        format!("{url}, process {pid}")
    }

    /// Reads what is answered line by line, until `each` has had enough.
    pub async fn each(
        &self,
        path: &[&str],
        filter: &impl Serialize,
        each: impl FnMut(Value) -> Result<(), ()>,
    ) -> Result<(), AskError> {
        let response = self.send(self.request(Method::GET, path).query(filter)).await?;
        self.lines(response, each).await
    }

    fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        let escaped: Vec<String> = path.iter().map(|part| part.replace(['/', '?', '#', '%'], "_")).collect();
        let url = format!("{}/api/{}", self.occupant.operator_url, escaped.join("/"));
        self.client.request(method, url).bearer_auth(&self.occupant.token)
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, AskError> {
        let response = request.send().await.map_err(|e| self.unreachable(e))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body: Value = response.json().await.map_err(|e| self.unreachable(e))?;
        let why = body["detail"].as_str().map_or_else(|| format!("it answered {status}"), str::to_owned);
        Err(QuestionError::Refused(why).into())
    }

    fn unreachable(&self, source: reqwest::Error) -> AskError {
        AskError::Unreachable { pid: self.occupant.pid, url: self.occupant.operator_url.clone(), source }
    }

    pub async fn get<T: DeserializeOwned>(
        &self,
        path: &[&str],
        filter: &impl Serialize,
    ) -> Result<T, AskError> {
        let response = self.send(self.request(Method::GET, path).query(filter)).await?;
        response.json().await.map_err(|e| self.unreachable(e))
    }

    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &[&str],
        said: &impl Serialize,
    ) -> Result<T, AskError> {
        let response = self.send(self.request(Method::POST, path).json(said)).await?;
        response.json().await.map_err(|e| self.unreachable(e))
    }

    /// Asks what takes long, and tells how far it has come.
    pub async fn long<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        filter: &impl Serialize,
        progress: Progress<'_>,
    ) -> Result<T, AskError> {
        let response = self.send(self.request(method, &[path]).query(filter)).await?;
        let mut done = None;
        self.lines(response, |mut line| {
            if let (Some(events), Some(of)) = (line["events"].as_u64(), line["of"].as_u64()) {
                progress(events, of);
            } else if line.get("done").is_some() {
                done = Some(line["done"].take());
            }
            Ok(())
        })
        .await?;
        let broken = || QuestionError::Refused("the shop stopped answering before it was done".into());
        let done = done.ok_or_else(broken)?;
        Ok(serde_json::from_value(done).map_err(|_| broken())?)
    }

    /// Reads NDJSON until `each` has had enough. A line with `error` ends it as one.
    async fn lines(
        &self,
        mut response: Response,
        mut each: impl FnMut(Value) -> Result<(), ()>,
    ) -> Result<(), AskError> {
        let mut buffer = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.unreachable(e))? {
            buffer.extend_from_slice(&chunk);
            while let Some(end) = buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                let line: Value = serde_json::from_slice(&line)
                    .map_err(|e| QuestionError::Refused(format!("the shop's answer is not JSON: {e}")))?;
                if let Some(why) = line.get("error").and_then(Value::as_str) {
                    return Err(QuestionError::Refused(why.to_owned()).into());
                }
                if each(line).is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}
