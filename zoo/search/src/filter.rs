//! Conditions on the metadata of items.

use std::{fmt, str::FromStr};

use serde_json::Value;

use crate::SearchError;

/// How a value is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// A comparison of one value of the metadata with a constant.
///
/// The text form is `KEY OPERATOR VALUE`. `KEY` is a name, or names joined by dots for an object in an object; a name has
/// letters, digits, `_` and `-`. `OPERATOR` is one of `=`, `!=`, `<`, `<=`, `>` and `>=`. `VALUE` is a number, `true`,
/// `false`, `null` or a string of JSON; any other text is a string.
///
/// Values of different types are never equal, smaller or larger. An item without the key matches only `!=`.
///
/// ```
/// use laps_search::{Comparison, Condition};
///
/// let condition: Condition = "camera.year >= 2020".parse()?;
/// assert_eq!(condition.key, ["camera", "year"]);
/// assert_eq!(condition.comparison, Comparison::GreaterOrEqual);
/// assert_eq!(condition.value, 2020);
/// # Ok::<_, laps_search::SearchError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// Names of the nested objects, and of the value.
    pub key: Vec<String>,
    /// How the value of the item, on the left, is compared.
    pub comparison: Comparison,
    /// A number, a string, a boolean or null.
    pub value: Value,
}

/// Conditions that all hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// The conditions; without any, every item matches.
    pub conditions: Vec<Condition>,
}

impl Filter {
    /// Parses conditions, which all must hold.
    ///
    /// # Errors
    /// [`SearchError::Option`] for one that is not a condition.
    pub fn parse<S: AsRef<str>>(conditions: &[S]) -> Result<Self, SearchError> {
        let conditions = conditions.iter().map(|text| text.as_ref().parse()).collect::<Result<_, _>>()?;
        Ok(Self { conditions })
    }
}

impl FromStr for Condition {
    type Err = SearchError;

    fn from_str(text: &str) -> Result<Self, SearchError> {
        parse(text).ok_or_else(|| SearchError::Option {
            option: "filter",
            expected: "`KEY OPERATOR VALUE`, such as `year >= 2020` or `camera.maker = \"Leica\"`",
            found: format!("`{text}`"),
        })
    }
}

fn parse(text: &str) -> Option<Condition> {
    let is_name = |byte: char| byte.is_alphanumeric() || matches!(byte, '_' | '-');
    let text = text.trim();
    let (key, rest) = text.split_at(text.find(|byte| !is_name(byte) && byte != '.')?);
    let rest = rest.trim_start();
    let (comparison, value) = [
        ("!=", Comparison::NotEqual),
        ("<=", Comparison::LessOrEqual),
        (">=", Comparison::GreaterOrEqual),
        ("=", Comparison::Equal),
        ("<", Comparison::Less),
        (">", Comparison::Greater),
    ]
    .into_iter()
    .find_map(|(operator, comparison)| Some((comparison, rest.strip_prefix(operator)?.trim_start())))?;
    let key: Vec<String> = key.split('.').map(str::to_owned).collect();
    // A second operator is a mistake, such as `==` or `=>`.
    if key.iter().any(String::is_empty) || value.is_empty() || value.starts_with(['=', '<', '>']) {
        return None;
    }
    let value = match serde_json::from_str(value) {
        Ok(Value::Object(_) | Value::Array(_)) => return None,
        Ok(value) => value,
        // An unfinished string of JSON is a mistake rather than a text.
        Err(_) if value.starts_with(['"', '{', '[']) => return None,
        Err(_) => Value::String(value.to_owned()),
    };
    // Postgres' JSON cannot hold U+0000.
    let is_storable = !value.as_str().is_some_and(|text| text.contains('\0'));
    is_storable.then_some(Condition { key, comparison, value })
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Comparison, Condition, Filter};

    #[test]
    fn conditions_are_parsed() {
        let cases = [
            ("year=2020", "year", Comparison::Equal, json!(2020)),
            (" a.b-c_1  !=  x y ", "a.b-c_1", Comparison::NotEqual, json!("x y")),
            ("year < -1.5e3", "year", Comparison::Less, json!(-1.5e3)),
            ("name <= \"1\"", "name", Comparison::LessOrEqual, json!("1")),
            ("jahr>true", "jahr", Comparison::Greater, json!(true)),
            ("größe >= null", "größe", Comparison::GreaterOrEqual, json!(null)),
            ("a = '; DROP TABLE x; --", "a", Comparison::Equal, json!("'; DROP TABLE x; --")),
        ];
        for (text, key, comparison, value) in cases {
            let key = key.split('.').map(str::to_owned).collect();
            assert_eq!(text.parse::<Condition>().unwrap(), Condition { key, comparison, value }, "{text}");
        }
    }

    #[test]
    fn text_that_is_no_condition_is_rejected() {
        let texts =
            ["", "year", "= 3", "a =", "a == 3", "a => 3", "a..b = 3", "a b = 3", "a' = 3", "a = [1]", "a = \"x"];
        for text in texts {
            let error = Filter::parse(&[text]).unwrap_err().to_string();
            assert!(error.contains(&format!("found: `{text}`")), "{error}");
        }
    }
}
