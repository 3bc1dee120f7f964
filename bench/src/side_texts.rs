//! Side texts: what all captions of an image have in common, and those of no other image.
//!
//! A query that carries a text about its own image, such as a generated description, is easier than its caption alone.
//! [`audit`](crate::audit) looks for such texts and evaluates without them.

use std::collections::HashMap;

use laps_data::Split;

/// A text that captions share has at least this many words. Short ones are chance, such as `a man in a`.
const MIN_WORDS: usize = 5;

/// Change of the side texts of queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SideTextChange {
    /// They are removed.
    Remove,
    /// Each image gets those of another image.
    Shuffle,
}

/// The side text of one image: words before and after all of its captions.
#[derive(Clone, Debug, Default, PartialEq)]
struct SideText {
    before: Vec<String>,
    after: Vec<String>,
}

/// The side texts of a split.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SideTexts {
    /// That of each image, if it has one.
    by_image: Vec<Option<SideText>>,
}

impl SideTexts {
    /// The side texts of `split`. One word of each caption always stays.
    pub(crate) fn find(split: &Split) -> Self {
        let mut captions: Vec<Vec<Vec<&str>>> = vec![Vec::new(); split.images().len()];
        for (caption, &image) in split.captions().iter().zip(split.image_of()) {
            captions[image].push(caption.split_whitespace().collect());
        }
        let found: Vec<Option<SideText>> = captions.iter().map(|captions| SideText::shared(captions)).collect();
        // Two images with one text are not told apart by it.
        let mut images: HashMap<String, usize> = HashMap::new();
        for text in found.iter().flatten() {
            *images.entry(text.text()).or_default() += 1;
        }
        let is_own = |text: &SideText| images.get(&text.text()) == Some(&1);
        Self { by_image: found.into_iter().map(|text| text.filter(is_own)).collect() }
    }

    /// Number of images that have one.
    pub(crate) fn images(&self) -> usize {
        self.by_image.iter().flatten().count()
    }

    /// The first one.
    pub(crate) fn example(&self) -> Option<String> {
        self.by_image.iter().flatten().next().map(SideText::text)
    }

    /// `split` with changed side texts.
    pub(crate) fn change(&self, split: Split, change: SideTextChange) -> Split {
        let owners: Vec<usize> = (0..self.by_image.len()).filter(|&image| self.by_image[image].is_some()).collect();
        let mut others = vec![None; self.by_image.len()];
        for (position, &owner) in owners.iter().enumerate() {
            others[owner] = self.by_image[owners[(position + owners.len() / 2) % owners.len()]].as_ref();
        }
        let image_of = split.image_of().to_vec();
        split.map_captions(|caption, text| {
            let image = image_of[caption];
            let Some(own) = self.by_image.get(image).and_then(Option::as_ref) else { return text.to_owned() };
            let words: Vec<&str> = text.split_whitespace().collect();
            let words = &words[own.before.len()..words.len() - own.after.len()];
            let replaced = match change {
                SideTextChange::Remove => None,
                SideTextChange::Shuffle => others[image],
            };
            let [before, after] = replaced.map_or([&[][..]; 2], |text| [&text.before, &text.after].map(Vec::as_slice));
            let words = before.iter().map(String::as_str).chain(words.iter().copied());
            words.chain(after.iter().map(String::as_str)).collect::<Vec<_>>().join(" ")
        })
    }
}

impl SideText {
    /// Common beginning and end of all `captions`, if they have enough words.
    fn shared(captions: &[Vec<&str>]) -> Option<Self> {
        let (first, rest) = captions.split_first().filter(|(_, rest)| !rest.is_empty())?;
        let shortest = captions.iter().map(Vec::len).min()?;
        let enough = |count: usize| if count >= MIN_WORDS { count } else { 0 };
        let left = shortest.checked_sub(1)?;
        let agree = |at: usize| rest.iter().all(|other| other[at] == first[at]);
        let before = enough((0..left).take_while(|&at| agree(at)).count());
        let agree = |at: usize| rest.iter().all(|other| other[other.len() - at] == first[first.len() - at]);
        let after = enough((1..=left - before).take_while(|&at| agree(at)).count());
        let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        let text = Self { before: owned(&first[..before]), after: owned(&first[first.len() - after..]) };
        (text != Self::default()).then_some(text)
    }

    fn text(&self) -> String {
        self.before.iter().chain(&self.after).map(String::as_str).collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::SideText;

    #[test]
    fn shared_text_is_what_all_captions_begin_or_end_with() {
        let shared = |captions: &[&str]| {
            let captions: Vec<Vec<&str>> = captions.iter().map(|caption| caption.split(' ').collect()).collect();
            SideText::shared(&captions).map(|text| (text.before.join(" "), text.after.join(" ")))
        };
        let side = "a photo of two dogs";
        let both = |before: &str, after: &str| Some((before.to_owned(), after.to_owned()));
        assert_eq!(shared(&[&format!("one {side}"), &format!("one more {side}")]), both("", side));
        assert_eq!(shared(&[&format!("{side} one"), &format!("{side} more")]), both(side, ""));
        assert_eq!(shared(&["a photo of two one", "a photo of two more"]), None);
        // A word of each caption stays, also of equal ones; a single caption shares nothing.
        assert_eq!(shared(&[format!("{side} one").as_str(); 2]), both(side, ""));
        assert_eq!(shared(&[side; 2]), None);
        assert_eq!(shared(&["a photo of two dogs and a cat"]), None);
    }
}
