//! The paths in a source file: those of its `use` items, and those in its code.

/// The names that `use` items bring in, each with its path.
pub fn uses(tokens: &[String]) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let begins_item = at == 0 || [";", "}", "{", ")", "]", "pub"].contains(&tokens[at - 1].as_str());
        if token == "use" && begins_item {
            let end = tokens[at..].iter().position(|token| token == ";").map_or(tokens.len(), |length| at + length);
            use_tree(&tokens[at + 1..end], &[], &mut found);
        }
    }
    found
}

/// One tree of a `use` item: `a::b`, `a::{b, c as d}`, `a::*`.
fn use_tree(tokens: &[String], prefix: &[String], found: &mut Vec<(String, Vec<String>)>) {
    let mut path = prefix.to_vec();
    let mut at = 0;
    while at < tokens.len() {
        match tokens[at].as_str() {
            "::" => {}
            "{" => {
                let inner = &tokens[at + 1..tokens.len() - 1];
                let mut depth = 0;
                for tree in inner.split(|token| {
                    depth += match token.as_str() {
                        "{" => 1,
                        "}" => -1,
                        _ => 0,
                    };
                    depth == 0 && token == ","
                }) {
                    use_tree(tree, &path, found);
                }
                return;
            }
            "as" => {
                let name = tokens.get(at + 1).cloned().unwrap_or_default();
                found.push((name, path));
                return;
            }
            name => path.push(name.to_owned()),
        }
        at += 1;
    }
    // `a::{self}` is `a`.
    if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    if let Some(last) = path.last().filter(|_| path.len() > prefix.len() || tokens == ["self"]) {
        found.push((last.clone(), path));
    }
}

/// Paths outside of `use` items that begin at the crate, here, or above.
pub fn paths(tokens: &[String]) -> Vec<Vec<String>> {
    let is_name = |token: &String| token.chars().all(|c| c.is_alphanumeric() || c == '_');
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let follows = |offset: usize, text: &str| tokens.get(offset).is_some_and(|token| token == text);
        let starts = ["crate", "self", "super"].contains(&token.as_str()) && follows(at + 1, "::");
        if !starts || at > 0 && tokens[at - 1] == "::" || in_use(tokens, at) {
            continue;
        }
        let mut path = vec![token.clone()];
        let mut next = at + 1;
        while follows(next, "::") && tokens.get(next + 1).is_some_and(is_name) {
            path.push(tokens[next + 1].clone());
            next += 2;
        }
        found.push(path);
    }
    found
}

/// Whether a token lies in a `use` item.
fn in_use(tokens: &[String], at: usize) -> bool {
    let start = tokens[..at].iter().rposition(|token| token == ";").map_or(0, |end| end + 1);
    tokens[start..at].iter().any(|token| token == "use")
}

#[test]
fn every_form_of_import_is_read() {
    let text = r##"
        pub(crate) use super::super::a::{b, c::{self, d as e}};
        use crate::*;
        fn f() -> char { crate::g::h::<'static>("use crate::text;"); r#"use crate::raw;"#; '"' } // use crate::comment;
        #[cfg(test)]
        mod tests { use crate::tests_only; }
        use crate::last;
    "##;
    let tokens = crate::tokens::without_tests(crate::tokens::tokens(text));
    let found: Vec<String> = uses(&tokens).iter().map(|(name, path)| format!("{name}: {}", path.join("::"))).collect();
    let expected = [
        "b: super::super::a::b",
        "c: super::super::a::c",
        "e: super::super::a::c::d",
        "*: crate::*",
        "last: crate::last",
    ];
    assert_eq!(found, expected);
    assert_eq!(paths(&tokens), [["crate", "g", "h"]]);
}
