//! Rows of text tables, made to fit the terminal.

use console::{Term, measure_text_width};

/// The least width of a column that is continued on further lines.
const LEAST: usize = 20;

/// The rows of a table, whose last column begins `indent` characters from the left. If stdout is a terminal that is
/// narrower than a row, the row's end continues on further lines, below the beginning of that column. Elsewhere a row
/// stays one line, which programs can read.
pub fn fit_terminal(rows: &str, indent: usize) -> String {
    match Term::stdout().size_checked() {
        Some((_, width)) => fit(rows, indent, width.into()),
        None => rows.into(),
    }
}

fn fit(rows: &str, indent: usize, width: usize) -> String {
    let rows: Vec<String> = rows.lines().map(|row| fit_row(row, indent, width)).collect();
    rows.join("\n")
}

/// A row as lines of at most `width`, which end at spaces; a longer word is left whole, so that it can be copied.
fn fit_row(row: &str, indent: usize, width: usize) -> String {
    if measure_text_width(row) <= width || width < indent + LEAST {
        return row.into();
    }
    let mut lines = Vec::new();
    let mut line = String::new();
    for piece in row.split_inclusive(' ') {
        // The space at its end may stick out.
        let longer = measure_text_width(&line) + measure_text_width(piece.trim_end());
        // What is only indent has nothing to break after.
        if longer > width && measure_text_width(line.trim_end()) > indent {
            lines.push(line.trim_end().to_owned());
            line = " ".repeat(indent);
        }
        // Columns are two spaces apart, and the second one would begin the line.
        let begins = !lines.is_empty() && line.len() == indent;
        line += if begins { piece.trim_start() } else { piece };
    }
    lines.push(line.trim_end().to_owned());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_rows_continue_below_their_last_column() {
        let rows = "ok    gpu     none, so networks compute on the CPU: there is no driver\nok    ranks   1";
        let fitted = [
            "ok    gpu     none, so networks compute",
            "              on the CPU: there is no",
            "              driver",
            "ok    ranks   1",
        ];
        let fitted = fitted.join("\n");
        assert_eq!(fit(rows, 14, 40), fitted);
        assert_eq!(fit(rows, 14, 80), rows);
    }

    #[test]
    fn words_that_do_not_fit_stay_whole() {
        let hash = "0123456789".repeat(5);
        let row = format!("shard   {hash}  5 bytes");
        assert_eq!(fit(&row, 8, 40), format!("shard   {hash}\n        5 bytes"));
        let row = format!("shard   a.safetensors  {hash} bytes");
        assert_eq!(fit(&row, 8, 40), format!("shard   a.safetensors\n        {hash}\n        bytes"));
        // There is no room for a column.
        assert_eq!(fit(&row, 8, 20), row);
    }
}
