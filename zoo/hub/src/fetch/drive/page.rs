//! What Drive answers in place of a file: the listing of a folder, a form to confirm, or a refusal.

use super::html::{Piece, Tag, pieces, unescape};

/// Most entries of a listing that are read.
const MOST_ENTRIES: usize = 10_000;

/// Most characters of a name or title; longer ones are cut.
const LONGEST_TEXT: usize = 1_000;

/// Most hidden inputs of a form; the known one has five.
const MOST_INPUTS: usize = 32;

/// The page of a public folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Name of the folder.
    pub title: String,
    /// What is in it, in the order of the page.
    pub entries: Vec<Entry>,
}

/// A file or folder in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its identifier.
    pub id: String,
    /// Its name as the page has it: any text, slashes included.
    pub name: String,
    /// Whether it is a folder itself.
    pub is_folder: bool,
}

/// What a page in place of a file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The file is large and the download has to be confirmed: address and fields of the form.
    Confirm {
        /// `action` of the form.
        action: String,
        /// Names and values of its hidden inputs.
        inputs: Vec<(String, String)>,
    },
    /// Drive does not give the file at present, in its own words.
    Refused(String),
    /// None of the pages that are known.
    Unknown,
}

/// Whether `id` is made as identifiers of Drive are, so that it can stand in an address as it is.
pub fn is_id(id: &str) -> bool {
    (10..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}

/// Reads the page of a folder; None where it is no listing.
pub fn read_listing(page: &str) -> Option<Listing> {
    let mut listing = Listing { title: title(page).unwrap_or_default(), entries: Vec::new() };
    let mut is_listing = false;
    let mut link: Option<(String, bool)> = None;
    let mut name = Collector::default();
    for piece in pieces(page) {
        match piece {
            Piece::Open(tag) => {
                is_listing |= tag.has_class("flip-entries");
                if tag.is("a")
                    && let Some(found) = tag.attribute("href").as_deref().and_then(target)
                {
                    link = Some(found);
                    name = Collector::default();
                } else if tag.has_class("flip-entry-title") {
                    name.begin(tag.name);
                } else {
                    name.open(&tag);
                }
            }
            Piece::Text(text) => name.add(text),
            Piece::Close(closed) => {
                name.close(closed);
                if closed.eq_ignore_ascii_case("a")
                    && let Some((id, is_folder)) = link.take()
                    && let Some(name) = name.take()
                    && listing.entries.len() < MOST_ENTRIES
                {
                    listing.entries.push(Entry { id, name, is_folder });
                }
            }
        }
    }
    is_listing.then_some(listing)
}

/// Identifier and kind of what an address of Drive leads to.
fn target(href: &str) -> Option<(String, bool)> {
    let path = href.split(['?', '#']).next()?;
    let after = |marker: &str| path.split_once(marker).and_then(|(_, rest)| rest.split('/').next());
    let (id, is_folder) = match after("/file/d/") {
        Some(id) => (id, false),
        None => (after("/drive/folders/")?, true),
    };
    is_id(id).then(|| (id.to_owned(), is_folder))
}

/// Reads a page that came in place of a file.
pub fn read_notice(page: &str) -> Notice {
    let mut form: Option<(String, Vec<(String, String)>)> = None;
    let mut inside = false;
    let mut refusal = Collector::default();
    for piece in pieces(page) {
        match piece {
            Piece::Open(tag) => {
                if tag.is("form") && tag.attribute("id").as_deref() == Some("download-form") && form.is_none() {
                    inside = true;
                    form = tag.attribute("action").map(|action| (action, Vec::new()));
                } else if tag.is("input")
                    && inside
                    && let Some((_, inputs)) = &mut form
                {
                    let hidden = tag.attribute("type").is_some_and(|kind| kind.eq_ignore_ascii_case("hidden"));
                    if let (true, Some(name)) = (hidden && inputs.len() < MOST_INPUTS, tag.attribute("name")) {
                        inputs.push((name, tag.attribute("value").unwrap_or_default()));
                    }
                }
                if tag.has_class("uc-error-subcaption") {
                    refusal.begin(tag.name);
                } else {
                    refusal.open(&tag);
                }
            }
            Piece::Text(text) => refusal.add(text),
            Piece::Close(closed) => {
                inside &= !closed.eq_ignore_ascii_case("form");
                refusal.close(closed);
            }
        }
    }
    if let Some(text) = refusal.take() {
        return Notice::Refused(text);
    }
    form.map_or(Notice::Unknown, |(action, inputs)| Notice::Confirm { action, inputs })
}

/// The title of a page, on one line.
pub fn title(page: &str) -> Option<String> {
    let mut title = Collector::default();
    for piece in pieces(page) {
        match piece {
            Piece::Open(tag) if tag.is("title") => title.begin(tag.name),
            Piece::Open(tag) => title.open(&tag),
            Piece::Text(text) => title.add(text),
            Piece::Close(closed) => {
                title.close(closed);
                if title.is_complete() {
                    break;
                }
            }
        }
    }
    title.take()
}

/// The text of one element, the first that is begun.
#[derive(Default)]
struct Collector {
    element: Option<String>,
    depth: usize,
    text: String,
    complete: bool,
}

impl Collector {
    fn begin(&mut self, element: &str) {
        if self.element.is_none() {
            (self.element, self.depth) = (Some(element.to_owned()), 1);
        } else {
            self.depth += usize::from(self.is_inside(element));
        }
    }

    fn is_inside(&self, element: &str) -> bool {
        !self.complete && self.element.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(element))
    }

    fn open(&mut self, tag: &Tag<'_>) {
        self.depth += usize::from(self.is_inside(tag.name));
    }

    fn add(&mut self, text: &str) {
        if self.element.is_some() && !self.complete && self.text.len() < 4 * LONGEST_TEXT {
            self.text.extend(text.chars().take(LONGEST_TEXT));
        }
    }

    fn close(&mut self, element: &str) {
        if self.is_inside(element) {
            self.depth = self.depth.saturating_sub(1);
            self.complete = self.depth == 0;
        }
    }

    fn is_complete(&self) -> bool {
        self.complete
    }

    /// The text with single spaces and without entities; None where there is none.
    fn take(&mut self) -> Option<String> {
        let text = std::mem::take(self).text;
        let text = unescape(&text);
        let words: Vec<&str> = text.split_whitespace().collect();
        let text: String = words.join(" ").chars().take(LONGEST_TEXT).collect();
        (!text.is_empty()).then_some(text)
    }
}
