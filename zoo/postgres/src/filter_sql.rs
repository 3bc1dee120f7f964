//! Filters as SQL. Keys and values are parameters; only operators and numbers of parameters are part of the text.

use laps_search::{Comparison, Condition, Filter};
use postgres::types::ToSql;
use serde_json::{Value, json};

/// A condition of SQL with its parameters.
pub(crate) struct FilterSql {
    /// An expression of type boolean on a row of items.
    pub(crate) condition: String,
    /// The parameters of the expression.
    pub(crate) parameters: Vec<Box<dyn ToSql + Sync>>,
}

impl FilterSql {
    /// Translates a filter. Its parameters are numbered from `first`.
    pub(crate) fn new(filter: Option<&Filter>, first: usize) -> Self {
        let mut sql = Self { condition: "true".to_owned(), parameters: Vec::new() };
        for condition in filter.iter().flat_map(|filter| &filter.conditions) {
            sql.add(condition, first);
        }
        sql
    }

    fn add(&mut self, Condition { key, comparison, value }: &Condition, first: usize) {
        let mut parameter = |value: Box<dyn ToSql + Sync>| {
            self.parameters.push(value);
            first + self.parameters.len() - 1
        };
        let operator = match comparison {
            Comparison::Equal | Comparison::NotEqual => {
                // The index on metadata finds the rows that contain an object.
                let object = key.iter().rev().fold(value.clone(), |value, name| json!({ (name): value }));
                let object = parameter(Box::new(object.to_string()));
                let not = if *comparison == Comparison::NotEqual { "NOT " } else { "" };
                self.condition += &format!(" AND {not}(metadata @> ${object}::text::jsonb)");
                return;
            }
            Comparison::Less => "<",
            Comparison::LessOrEqual => "<=",
            Comparison::Greater => ">",
            Comparison::GreaterOrEqual => ">=",
        };
        let key = parameter(Box::new(key.clone()));
        let value = parameter(Box::new(Value::to_string(value)));
        // JSON values of different types have an order too, which is not meant.
        let (left, right) = (format!("metadata #> ${key}::text[]"), format!("${value}::text::jsonb"));
        self.condition +=
            &format!(" AND jsonb_typeof({left}) = jsonb_typeof({right}) AND ({left}) {operator} ({right})");
    }

    /// The parameters, as the client takes them.
    pub(crate) fn parameters(&self) -> impl Iterator<Item = &(dyn ToSql + Sync)> {
        self.parameters.iter().map(|parameter| &**parameter)
    }
}

#[cfg(test)]
mod tests {
    use super::FilterSql;
    use laps_search::Filter;

    #[test]
    fn text_of_a_filter_is_never_part_of_the_statement() {
        let filter = Filter::parse(&["a.b = x'); DROP TABLE y; --", "größe != 3", "c-d <= \"$1\""]).unwrap();
        let sql = FilterSql::new(Some(&filter), 2);
        assert_eq!(sql.parameters.len(), 4);
        insta::assert_snapshot!(sql.condition, @"true AND (metadata @> $2::text::jsonb) AND NOT (metadata @> $3::text::jsonb) AND jsonb_typeof(metadata #> $4::text[]) = jsonb_typeof($5::text::jsonb) AND (metadata #> $4::text[]) <= ($5::text::jsonb)");
    }
}
