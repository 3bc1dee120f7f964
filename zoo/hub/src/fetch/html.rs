//! A minimal HTML reader for the pages of Google Drive: tags with their attributes, text, and the title of a page.
//!
//! It runs in linear time, does not recurse, and accepts any input. A full HTML parser would be a large dependency for
//! the four elements that are looked for.

use std::borrow::Cow;

/// Maximum number of characters of a title or name; longer ones are cut.
const MAX_TEXT: usize = 1_000;

/// A token of a page.
#[derive(Debug, PartialEq, Eq)]
pub enum HtmlToken<'a> {
    /// `<name ...>` or `<name ... />`.
    Open(Tag<'a>),
    /// `</name>`.
    Close(&'a str),
    /// Text between tags, with entities still escaped.
    Text(&'a str),
}

/// An opening tag.
#[derive(Debug, PartialEq, Eq)]
pub struct Tag<'a> {
    /// Name of the element.
    pub name: &'a str,
    attributes: &'a str,
}

/// Elements whose content is not markup.
const RAW_ELEMENTS: [&str; 2] = ["script", "style"];

/// The tokens of `page` in document order.
pub fn tokens(page: &str) -> impl Iterator<Item = HtmlToken<'_>> {
    HtmlTokens { rest: page }
}

struct HtmlTokens<'a> {
    rest: &'a str,
}

impl<'a> Iterator for HtmlTokens<'a> {
    type Item = HtmlToken<'a>;

    fn next(&mut self) -> Option<HtmlToken<'a>> {
        loop {
            let start = self.rest.find('<').unwrap_or(self.rest.len());
            if start > 0 {
                let (text, rest) = self.rest.split_at(start);
                self.rest = rest;
                return Some(HtmlToken::Text(text));
            }
            let inner = self.rest.strip_prefix('<')?;
            if let Some(comment) = inner.strip_prefix("!--") {
                // An unclosed comment extends to the end of the page.
                self.rest = comment.split_once("-->").map_or("", |(_, rest)| rest);
                continue;
            }
            let is_tag = inner.starts_with(|first: char| first.is_ascii_alphabetic() || "/!?".contains(first));
            if !is_tag {
                self.rest = inner;
                return Some(HtmlToken::Text("<"));
            }
            let (tag, rest) = inner.split_at(tag_end(inner));
            self.rest = rest.strip_prefix('>').unwrap_or(rest);
            if let Some(name) = tag.strip_prefix('/') {
                return Some(HtmlToken::Close(tag_name(name)));
            }
            if tag.starts_with(['!', '?']) {
                continue;
            }
            let name = tag_name(tag);
            if let Some(raw) = RAW_ELEMENTS.into_iter().find(|raw| raw.eq_ignore_ascii_case(name)) {
                self.rest = skip_raw_content(self.rest, raw);
            }
            return Some(HtmlToken::Open(Tag { name, attributes: &tag[name.len()..] }));
        }
    }
}

/// Offset of the `>` that ends a tag, ignoring quoted ones; the end of the page for an unclosed tag.
fn tag_end(inner: &str) -> usize {
    let mut quote = None;
    let mut after_equals = false;
    for (index, byte) in inner.bytes().enumerate() {
        match (quote, byte) {
            (Some(open), byte) if open == byte => quote = None,
            (Some(_), _) => {}
            (None, b'>') => return index,
            (None, b'"' | b'\'') if after_equals => quote = Some(byte),
            (None, _) => {}
        }
        after_equals = byte == b'=' || (after_equals && byte.is_ascii_whitespace());
    }
    inner.len()
}

/// `rest` from the closing tag of the raw element `name` on; empty for an unclosed element.
fn skip_raw_content<'a>(rest: &'a str, name: &str) -> &'a str {
    let mut from = 0;
    while let Some(offset) = rest[from..].find("</") {
        let start = from + offset;
        let after = &rest[start + 2..];
        if after.get(..name.len()).is_some_and(|head| head.eq_ignore_ascii_case(name)) {
            return &rest[start..];
        }
        from = start + 2;
    }
    ""
}

fn tag_name(tag: &str) -> &str {
    let end = tag.find(|letter: char| letter.is_ascii_whitespace() || "/>".contains(letter)).unwrap_or(tag.len());
    &tag[..end]
}

impl Tag<'_> {
    /// Whether the element is called `name`, in any case.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// The unescaped value of the first attribute called `name`.
    pub fn attribute(&self, name: &str) -> Option<String> {
        let mut rest = self.attributes;
        loop {
            rest = rest.trim_start_matches(|letter: char| letter.is_ascii_whitespace() || letter == '/');
            if rest.is_empty() {
                return None;
            }
            let end = rest
                .char_indices()
                .skip(1)
                .find(|&(_, letter)| letter.is_ascii_whitespace() || "=/".contains(letter))
                .map_or(rest.len(), |(index, _)| index);
            let (key, after) = rest.split_at(end);
            let after = after.trim_start();
            let (value, after) = match after.strip_prefix('=') {
                Some(after) => split_attribute_value(after.trim_start()),
                None => ("", after),
            };
            if key.eq_ignore_ascii_case(name) {
                return Some(unescape(value).into_owned());
            }
            rest = after;
        }
    }

    /// Whether the element has the class `class`.
    pub fn has_class(&self, class: &str) -> bool {
        self.attribute("class").is_some_and(|classes| classes.split_ascii_whitespace().any(|one| one == class))
    }
}

/// The attribute value at the start of `text`, and the rest.
fn split_attribute_value(text: &str) -> (&str, &str) {
    for quote in ['"', '\''] {
        if let Some(inner) = text.strip_prefix(quote) {
            return inner.split_once(quote).unwrap_or((inner, ""));
        }
    }
    let end = text.find(|letter: char| letter.is_ascii_whitespace()).unwrap_or(text.len());
    text.split_at(end)
}

/// Maximum length of an entity between `&` and `;`.
const MAX_ENTITY: usize = 8;

/// Resolves numeric entities and the names that markup itself needs; other entities stay as they are.
pub fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('&') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('&') {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let end = rest.bytes().take(MAX_ENTITY + 2).position(|byte| byte == b';');
        match end.and_then(|end| Some((entity(&rest[1..end])?, end))) {
            Some((letter, end)) => {
                out.push(letter);
                rest = &rest[end + 1..];
            }
            None => {
                out.push('&');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    Cow::Owned(out)
}

fn entity(name: &str) -> Option<char> {
    let number = |digits: &str, radix| u32::from_str_radix(digits, radix).ok().and_then(char::from_u32);
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        "nbsp" => Some('\u{a0}'),
        _ => match name.strip_prefix('#')?.strip_prefix(['x', 'X']) {
            Some(digits) => number(digits, 16),
            None => number(&name[1..], 10),
        },
    }
}

/// The title of a page, on one line.
pub fn title(page: &str) -> Option<String> {
    let mut title = ElementText::default();
    for token in tokens(page) {
        match token {
            HtmlToken::Open(tag) if tag.is("title") => title.begin(tag.name),
            HtmlToken::Open(tag) => title.open(&tag),
            HtmlToken::Text(text) => title.add(text),
            HtmlToken::Close(name) => {
                title.close(name);
                if title.is_complete() {
                    break;
                }
            }
        }
    }
    title.take()
}

/// Describes a page by its title, for error messages.
pub fn describe_page(page: &str) -> String {
    match title(page) {
        Some(title) => format!("a page with the title `{}`", title.escape_debug()),
        None => "a page without a title".to_owned(),
    }
}

/// Collects the text of one element, the first for which [`begin`](Self::begin) is called.
#[derive(Default)]
pub struct ElementText {
    element: Option<String>,
    depth: usize,
    text: String,
    complete: bool,
}

impl ElementText {
    /// Starts collecting at the opening tag of `element`.
    pub fn begin(&mut self, element: &str) {
        if self.element.is_none() {
            (self.element, self.depth) = (Some(element.to_owned()), 1);
        } else {
            self.depth += usize::from(self.is_same_element(element));
        }
    }

    fn is_same_element(&self, element: &str) -> bool {
        !self.complete && self.element.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(element))
    }

    /// Sees another opening tag.
    pub fn open(&mut self, tag: &Tag<'_>) {
        self.depth += usize::from(self.is_same_element(tag.name));
    }

    /// Sees text.
    pub fn add(&mut self, text: &str) {
        if self.element.is_some() && !self.complete && self.text.len() < 4 * MAX_TEXT {
            self.text.extend(text.chars().take(MAX_TEXT));
        }
    }

    /// Sees a closing tag.
    pub fn close(&mut self, element: &str) {
        if self.is_same_element(element) {
            self.depth = self.depth.saturating_sub(1);
            self.complete = self.depth == 0;
        }
    }

    fn is_complete(&self) -> bool {
        self.complete
    }

    /// The unescaped text with single spaces; None if it is empty. Starts over.
    pub fn take(&mut self) -> Option<String> {
        let text = std::mem::take(self).text;
        let text = unescape(&text);
        let words: Vec<&str> = text.split_whitespace().collect();
        let text: String = words.join(" ").chars().take(MAX_TEXT).collect();
        (!text.is_empty()).then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::{HtmlToken, tokens, unescape};

    fn read(page: &str) -> String {
        let mut text = String::new();
        for token in tokens(page) {
            text += &match token {
                HtmlToken::Open(tag) => format!("[{} {:?}]", tag.name, tag.attribute("a")),
                HtmlToken::Close(name) => format!("[/{name}]"),
                HtmlToken::Text(inner) => unescape(inner).into_owned(),
            };
        }
        text
    }

    #[test]
    fn tags_attributes_and_text_are_tokenized() {
        assert_eq!(read("x<p a='1 > 2' b>y</p>"), "x[p Some(\"1 > 2\")]y[/p]");
        assert_eq!(read("<br A=1/>&lt;&#65;&#x42;&unknown;&"), "[br Some(\"1/\")]<AB&unknown;&");
        assert_eq!(read("<!doctype html><!-- <p> --><i b=\"a='2'\" a = \"&quot;\">"), "[i Some(\"\\\"\")]");
        assert_eq!(read("<script>if (a < b) '<p>'</SCRIPT>t"), "[script None][/SCRIPT]t");
        assert_eq!(read("1 < 2 <3"), "1 < 2 <3");
    }

    #[test]
    fn truncated_pages_do_not_panic() {
        for page in ["<", "</", "<p", "<p a", "<p a=", "<p a='", "<!--", "<script>", "<script></", "&", "&#", "&#x;"] {
            read(page);
        }
        assert_eq!(read("<p a='1"), "[p Some(\"1\")]");
    }
}
