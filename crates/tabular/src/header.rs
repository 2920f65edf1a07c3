//! Finds columns by their names.

/// The column that a name means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    One(usize),
    None,
    Several,
}

/// Finds the column called `name`. A column of exactly this name goes before those whose names differ in case, blanks and
/// underscores.
pub fn find(header: &[String], name: &str) -> Found {
    let only = |fits: &dyn Fn(&String) -> bool| {
        let mut found = header.iter().enumerate().filter(|(_, column)| fits(column));
        match (found.next(), found.next()) {
            (Some((index, _)), None) => Found::One(index),
            (None, _) => Found::None,
            _ => Found::Several,
        }
    };
    match only(&|column| column == name) {
        Found::None => {
            let wanted = simplified(name);
            match wanted.is_empty() {
                true => Found::None,
                false => only(&|column| simplified(column) == wanted),
            }
        }
        found => found,
    }
}

/// Returns `name` in lower case without blanks and underscores.
pub fn simplified(name: &str) -> String {
    name.chars()
        .filter(|&c| c != '_' && !is_blank(c))
        .flat_map(char::to_lowercase)
        .collect()
}

/// Returns whether most of the names are numbers or dates, so that the first line is likely to be data.
pub fn looks_like_data(header: &[String]) -> bool {
    let is_data = |cell: &&String| {
        let cell = trimmed(cell);
        let n_digits = cell.bytes().filter(u8::is_ascii_digit).count();
        n_digits > 0
            && cell
                .bytes()
                .all(|byte| byte.is_ascii_digit() || b"+-.,:/ TZ".contains(&byte))
    };
    let cells = header.iter().filter(|cell| !trimmed(cell).is_empty()).count();
    2 * header.iter().filter(is_data).count() > cells
}

/// Returns `text` without the blanks around it: all that Unicode calls white space, and characters of no width.
pub fn trimmed(text: &str) -> &str {
    match text.as_bytes() {
        [] => text,
        [first, .., last] if first.is_ascii_graphic() && last.is_ascii_graphic() => text,
        [only] if only.is_ascii_graphic() => text,
        _ => text.trim_matches(is_blank),
    }
}

fn is_blank(c: char) -> bool {
    const ZERO_WIDTH: [char; 6] = ['\u{200b}', '\u{200c}', '\u{200d}', '\u{2060}', '\u{feff}', '\u{180e}'];
    c.is_whitespace() || ZERO_WIDTH.contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(text: &str) -> Vec<String> {
        text.split('|').map(str::to_owned).collect()
    }

    #[test]
    fn names_match_without_regard_to_case_blanks_and_underscores() {
        let check =
            |columns: &str, name: &str, want| assert_eq!(find(&header(columns), name), want, "{columns} {name}");
        check("a|user_id", "user_id", Found::One(1));
        check("a|User ID", "user_id", Found::One(1));
        check("a|UserId", "user_id", Found::One(1));
        check("user id|user_id", "user_id", Found::One(1));
        check("user id|USER_ID", "user_id", Found::Several);
        check("user_id|user_id", "user_id", Found::Several);
        check("a|b", "user_id", Found::None);
        check("a||b", "_", Found::None);
        check("Größe", "größe", Found::One(0));
        check("order-id", "order_id", Found::None);
    }

    #[test]
    fn a_line_of_numbers_looks_like_data() {
        let check = |columns: &str, want| assert_eq!(looks_like_data(&header(columns)), want, "{columns}");
        check("196|242|3|881250949", true);
        check("1::1193::5::978300760", true);
        check("2011-08-15 10:20|7|tea", true);
        check("user_id|item_id|value|rated_at", false);
        check("store|2019|2020", true);
        check("item|price2", false);
        check("", false);
        check("-|T", false);
    }

    #[test]
    fn all_blanks_are_trimmed() {
        let check = |text: &str, want: &str| assert_eq!(trimmed(text), want, "{text:?}");
        check("", "");
        check("a", "a");
        check(" ", "");
        check("TEA ", "TEA");
        check("\u{a0}12\u{200b}", "12");
        check("\u{feff}a b\u{3000}", "a b");
        check("é", "é");
        check("a\u{200b}b", "a\u{200b}b");
    }
}
