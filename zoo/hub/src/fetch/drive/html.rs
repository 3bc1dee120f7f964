//! As much of HTML as the pages of Drive need: tags with their attributes, and text. Time grows with the page and no
//! further, nothing nests, and no input is an error.

use std::borrow::Cow;

/// A piece of a page.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// `<name ...>`, also where it closes itself.
    Open(Tag<'a>),
    /// `</name>`.
    Close(&'a str),
    /// What stands between tags, with its entities.
    Text(&'a str),
}

/// An opening tag.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tag<'a> {
    pub(super) name: &'a str,
    inner: &'a str,
}

/// Elements whose content is no markup.
const RAW: [&str; 2] = ["script", "style"];

/// The pieces of `page` in their order.
pub(super) fn pieces(page: &str) -> impl Iterator<Item = Piece<'_>> {
    Pieces { rest: page }
}

struct Pieces<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        loop {
            let start = self.rest.find('<').unwrap_or(self.rest.len());
            if start > 0 {
                let (text, rest) = self.rest.split_at(start);
                self.rest = rest;
                return Some(Piece::Text(text));
            }
            let inner = self.rest.strip_prefix('<')?;
            if let Some(comment) = inner.strip_prefix("!--") {
                // A comment without an end is the rest of the page.
                self.rest = comment.split_once("-->").map_or("", |(_, rest)| rest);
                continue;
            }
            let is_tag = inner.starts_with(|first: char| first.is_ascii_alphabetic() || "/!?".contains(first));
            if !is_tag {
                self.rest = inner;
                return Some(Piece::Text("<"));
            }
            let end = end_of_tag(inner);
            let (tag, rest) = inner.split_at(end);
            self.rest = rest.strip_prefix('>').unwrap_or(rest);
            if let Some(name) = tag.strip_prefix('/') {
                return Some(Piece::Close(name_of(name)));
            }
            if tag.starts_with(['!', '?']) {
                continue;
            }
            let name = name_of(tag);
            if let Some(raw) = RAW.into_iter().find(|raw| raw.eq_ignore_ascii_case(name)) {
                self.rest = after_raw(self.rest, raw);
            }
            return Some(Piece::Open(Tag { name, inner: &tag[name.len()..] }));
        }
    }
}

/// Where the `>` of a tag stands; quoted ones do not count. The end of the page for a tag without one.
fn end_of_tag(inner: &str) -> usize {
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

/// What follows the content of a raw element; nothing where it is not closed.
fn after_raw<'a>(rest: &'a str, name: &str) -> &'a str {
    let mut from = 0;
    while let Some(found) = rest[from..].find("</") {
        let start = from + found;
        let after = &rest[start + 2..];
        if after.get(..name.len()).is_some_and(|head| head.eq_ignore_ascii_case(name)) {
            return &rest[start..];
        }
        from = start + 2;
    }
    ""
}

fn name_of(tag: &str) -> &str {
    let end = tag.find(|letter: char| letter.is_ascii_whitespace() || "/>".contains(letter)).unwrap_or(tag.len());
    &tag[..end]
}

impl Tag<'_> {
    pub(super) fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// The value of an attribute with its entities resolved; of several of one name the first.
    pub(super) fn attribute(&self, name: &str) -> Option<String> {
        let mut rest = self.inner;
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
            let (found, after) = rest.split_at(end);
            let after = after.trim_start();
            let (value, after) = match after.strip_prefix('=') {
                Some(after) => value(after.trim_start()),
                None => ("", after),
            };
            if found.eq_ignore_ascii_case(name) {
                return Some(unescape(value).into_owned());
            }
            rest = after;
        }
    }

    /// Whether the element has this class.
    pub(super) fn has_class(&self, class: &str) -> bool {
        self.attribute("class").is_some_and(|classes| classes.split_ascii_whitespace().any(|one| one == class))
    }
}

fn value(text: &str) -> (&str, &str) {
    for quote in ['"', '\''] {
        if let Some(inner) = text.strip_prefix(quote) {
            return inner.split_once(quote).unwrap_or((inner, ""));
        }
    }
    let end = text.find(|letter: char| letter.is_ascii_whitespace()).unwrap_or(text.len());
    text.split_at(end)
}

/// Longest entity that is known, between `&` and `;`.
const LONGEST_ENTITY: usize = 8;

/// Text with the entities that such pages use: numbers and the few names of markup itself. Others stay as they are.
pub(super) fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('&') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('&') {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let end = rest.bytes().take(LONGEST_ENTITY + 2).position(|byte| byte == b';');
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

#[cfg(test)]
mod tests {
    use super::{Piece, pieces, unescape};

    fn read(page: &str) -> String {
        let mut text = String::new();
        for piece in pieces(page) {
            text += &match piece {
                Piece::Open(tag) => format!("[{} {:?}]", tag.name, tag.attribute("a")),
                Piece::Close(name) => format!("[/{name}]"),
                Piece::Text(inner) => unescape(inner).into_owned(),
            };
        }
        text
    }

    #[test]
    fn tags_attributes_and_text() {
        assert_eq!(read("x<p a='1 > 2' b>y</p>"), "x[p Some(\"1 > 2\")]y[/p]");
        assert_eq!(read("<br A=1/>&lt;&#65;&#x42;&unknown;&"), "[br Some(\"1/\")]<AB&unknown;&");
        assert_eq!(read("<!doctype html><!-- <p> --><i b=\"a='2'\" a = \"&quot;\">"), "[i Some(\"\\\"\")]");
        assert_eq!(read("<script>if (a < b) '<p>'</SCRIPT>t"), "[script None][/SCRIPT]t");
        assert_eq!(read("1 < 2 <3"), "1 < 2 <3");
    }

    #[test]
    fn pages_that_break_off() {
        for page in ["<", "</", "<p", "<p a", "<p a=", "<p a='", "<!--", "<script>", "<script></", "&", "&#", "&#x;"] {
            read(page);
        }
        assert_eq!(read("<p a='1"), "[p Some(\"1\")]");
    }
}
