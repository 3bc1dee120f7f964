//! Files at plain addresses.

use reqwest::Url;

use super::{
    FetchError,
    body::{Opened, Resume, Source, interpret},
    client::{Answer, Ask, Client},
    policy::{Policy, is_loopback},
};

/// A file at an address.
pub(super) struct AddressFile<'a> {
    pub(super) client: &'a Client,
    pub(super) url: Url,
    pub(super) policy: Policy,
    /// Whether a hash of the file is known, so that anybody may carry it.
    pub(super) is_hashed: bool,
}

impl Source for AddressFile<'_> {
    fn label(&self) -> String {
        super::client::bare(&self.url)
    }

    fn open(&mut self, resume: Option<&Resume>) -> Result<Opened, FetchError> {
        let label = self.label();
        if self.url.scheme() != "https" && !self.is_hashed && !is_loopback(&self.url) {
            return Err(FetchError::Address {
                address: label,
                expected: "https, for no hash of the file is known",
                found: "plain http".to_owned(),
            });
        }
        let ask = Ask { label: &label, url: self.url.clone(), policy: &self.policy, resume, token: None };
        let Answer { response, .. } = self.client.get(&ask)?;
        interpret(&label, response, resume)
    }
}
