//! The pages of Google Drive: the listing of a folder, and the pages that Drive sends instead of a file.

use crate::fetch::html::{ElementText, HtmlToken, title, tokens};

/// Maximum number of entries read from a listing.
const MAX_ENTRIES: usize = 10_000;

/// Maximum number of hidden inputs read from a form; the known form has five.
const MAX_INPUTS: usize = 32;

/// The page of a public folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FolderListing {
    /// Name of the folder.
    pub title: String,
    /// Files and folders, in page order.
    pub entries: Vec<ListingEntry>,
}

/// A file or folder in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListingEntry {
    /// Drive id.
    pub id: String,
    /// Name as it stands on the page. It is untrusted and may contain slashes.
    pub name: String,
    /// Whether the entry is a folder.
    pub is_folder: bool,
}

/// A page that Drive sends instead of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DrivePage {
    /// The form that confirms the download of a large file.
    Confirm {
        /// `action` of the form.
        action: String,
        /// Names and values of the hidden inputs.
        inputs: Vec<(String, String)>,
    },
    /// A refusal, in Drive's own words.
    Refused(String),
    /// Any other page.
    Unknown,
}

/// Whether `id` consists of the characters of Drive ids, so that it can be put into a URL unescaped.
pub fn is_id(id: &str) -> bool {
    (10..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}

/// Reads the page of a folder. Returns None if the page is not a listing.
pub fn read_listing(page: &str) -> Option<FolderListing> {
    let mut listing = FolderListing { title: title(page).unwrap_or_default(), entries: Vec::new() };
    let mut is_listing = false;
    let mut link: Option<(String, bool)> = None;
    let mut name = ElementText::default();
    for token in tokens(page) {
        match token {
            HtmlToken::Open(tag) => {
                is_listing |= tag.has_class("flip-entries");
                if tag.is("a")
                    && let Some(target) = tag.attribute("href").as_deref().and_then(link_target)
                {
                    link = Some(target);
                    name = ElementText::default();
                } else if tag.has_class("flip-entry-title") {
                    name.begin(tag.name);
                } else {
                    name.open(&tag);
                }
            }
            HtmlToken::Text(text) => name.add(text),
            HtmlToken::Close(closed) => {
                name.close(closed);
                if closed.eq_ignore_ascii_case("a")
                    && let Some((id, is_folder)) = link.take()
                    && let Some(name) = name.take()
                    && listing.entries.len() < MAX_ENTRIES
                {
                    listing.entries.push(ListingEntry { id, name, is_folder });
                }
            }
        }
    }
    is_listing.then_some(listing)
}

/// The Drive id in a link, and whether it is that of a folder.
fn link_target(href: &str) -> Option<(String, bool)> {
    let path = href.split(['?', '#']).next()?;
    let after = |marker: &str| path.split_once(marker).and_then(|(_, rest)| rest.split('/').next());
    let (id, is_folder) = match after("/file/d/") {
        Some(id) => (id, false),
        None => (after("/drive/folders/")?, true),
    };
    is_id(id).then(|| (id.to_owned(), is_folder))
}

/// Reads a page that Drive sent instead of a file.
pub fn read_page(page: &str) -> DrivePage {
    let mut form: Option<(String, Vec<(String, String)>)> = None;
    let mut in_form = false;
    let mut refusal = ElementText::default();
    for token in tokens(page) {
        match token {
            HtmlToken::Open(tag) => {
                if tag.is("form") && tag.attribute("id").as_deref() == Some("download-form") && form.is_none() {
                    in_form = true;
                    form = tag.attribute("action").map(|action| (action, Vec::new()));
                } else if tag.is("input")
                    && in_form
                    && let Some((_, inputs)) = &mut form
                {
                    let hidden = tag.attribute("type").is_some_and(|kind| kind.eq_ignore_ascii_case("hidden"));
                    if let (true, Some(name)) = (hidden && inputs.len() < MAX_INPUTS, tag.attribute("name")) {
                        inputs.push((name, tag.attribute("value").unwrap_or_default()));
                    }
                }
                if tag.has_class("uc-error-subcaption") {
                    refusal.begin(tag.name);
                } else {
                    refusal.open(&tag);
                }
            }
            HtmlToken::Text(text) => refusal.add(text),
            HtmlToken::Close(closed) => {
                in_form &= !closed.eq_ignore_ascii_case("form");
                refusal.close(closed);
            }
        }
    }
    if let Some(text) = refusal.take() {
        return DrivePage::Refused(text);
    }
    form.map_or(DrivePage::Unknown, |(action, inputs)| DrivePage::Confirm { action, inputs })
}

#[cfg(test)]
mod tests {
    use super::{DrivePage, read_listing, read_page};

    const ID: &str = "1FileFileFileFileFileFileFile0001";

    #[test]
    fn listing_is_read_with_its_title_ids_and_names() {
        let page = format!(
            r#"<title>LAPS f30k_vit</title><div class="flip-entries">
            <a href="https://drive.google.com/file/d/1LogLogLogLogLogLogLogLogLog00001/view?usp=drive_web"><img alt="a > b"/>
            <div class="flip-entry-title">train.log</div></a>
            <a href="https://drive.google.com/file/d/{ID}/view"><div class="flip-entry-title">a &lt;b&gt; &#39;c&#39;</div></a>
            </div>"#
        );
        let listing = read_listing(&page).unwrap();
        assert_eq!((listing.title.as_str(), listing.entries.len()), ("LAPS f30k_vit", 2));
        assert_eq!((listing.entries[1].id.as_str(), listing.entries[1].name.as_str()), (ID, "a <b> 'c'"));
        assert!(read_listing(&format!("<a href='/file/d/{ID}/view'></a>")).is_none());
    }

    #[test]
    fn refusal_and_form_are_recognized() {
        let refusal = "<p class=\"uc-error-subcaption\">Too many users.</p>";
        assert_eq!(read_page(refusal), DrivePage::Refused("Too many users.".to_owned()));
        assert_eq!(read_page("<p>"), DrivePage::Unknown);
        let form = r#"<form id="download-form" action="/x?a=1&amp;b=2"><input type="submit" id="go" value="Go"/>
            <input type="hidden" name="id" value="1"><input type="hidden" name="uuid" value="0-1&amp;2"></form>"#;
        let DrivePage::Confirm { action, inputs } = read_page(form) else { panic!("no form") };
        assert_eq!(action, "/x?a=1&b=2");
        let expected = [("id", "1"), ("uuid", "0-1&2")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(inputs, expected);
    }
}
