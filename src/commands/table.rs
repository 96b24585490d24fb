//! Tables for people: columns as wide as their widest cell, two spaces between them.

use std::fmt::Write;

/// Lines up `rows` under `headings`. An absent value is a dash.
pub(crate) fn table<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = headings.map(|heading| heading.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let mut line = |cells: &[String; N]| {
        let mut out = String::new();
        for (cell, width) in cells.iter().zip(widths) {
            let cell = if cell.is_empty() { "-" } else { cell };
            // Writing to a String cannot fail.
            let _ = write!(out, "{cell:width$}  ");
        }
        text.push_str(out.trim_end());
        text.push('\n');
    };
    line(&headings.map(str::to_owned));
    for row in rows {
        line(row);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::table;

    #[test]
    fn columns_line_up_and_absent_values_are_dashes() {
        let text =
            table(["ID", "LINE"], &[["1".to_owned(), String::new()], ["200".to_owned(), "x".to_owned()]]);
        assert_eq!(text, "ID   LINE\n1    -\n200  x\n");
    }
}
