//! What a file sink has committed, as anybody reads it who looks into the folder: every file that is not hidden.

use std::path::Path;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub name: String,
    pub lines: Vec<String>,
}

/// The visible files by name. A folder that is not there yet has none.
#[track_caller]
pub fn files(folder: &Path) -> Vec<File> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.expect("the folder can be listed").path();
        let name = path.file_name().expect("an entry has a name").to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        assert!(path.is_file(), "{} is no file", path.display());
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(text.is_empty() || text.ends_with('\n'), "{} ends in the middle of a line", path.display());
        files.push(File { name, lines: text.lines().map(str::to_owned).collect() });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    files
}

/// The lines of all files. Between files there is no order that a reader could rely on.
#[track_caller]
pub fn lines(folder: &Path) -> Vec<String> {
    files(folder).into_iter().flat_map(|file| file.lines).collect()
}

#[track_caller]
pub fn sorted_lines(folder: &Path) -> Vec<String> {
    let mut lines = lines(folder);
    lines.sort_unstable();
    lines
}

/// Rows that were staged and are neither committed nor removed. After the end of a job there are none.
#[track_caller]
pub fn staged(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder.join(".staging")) else { return Vec::new() };
    let names = entries.map(|entry| entry.expect("the folder can be listed").file_name().to_string_lossy().into_owned());
    // Markers of what was committed have no rows.
    names.filter(|name| !name.ends_with(".committed")).collect()
}

/// Compares two lists without order and shows the first differences only: outputs are long.
#[track_caller]
pub fn assert_same_lines(found: &[String], expected: &[String], what: &str) {
    let (mut found, mut expected) = (found.to_vec(), expected.to_vec());
    found.sort_unstable();
    expected.sort_unstable();
    if found == expected {
        return;
    }
    let (mut f, mut e) = (found.iter().peekable(), expected.iter().peekable());
    let (mut extra, mut missing) = (Vec::new(), Vec::new());
    loop {
        match (f.peek(), e.peek()) {
            (Some(a), Some(b)) if a == b => {
                f.next();
                e.next();
            }
            (Some(a), b) if b.is_none_or(|b| a < b) => extra.push(f.next().expect("peeked")),
            (_, Some(_)) => missing.push(e.next().expect("peeked")),
            _ => break,
        }
    }
    let (n, m) = (extra.len(), missing.len());
    extra.truncate(5);
    missing.truncate(5);
    panic!(
        "{what}: {} lines found, {} expected; {n} are too many, such as {extra:#?}; {m} are missing, such as {missing:#?}",
        found.len(),
        expected.len()
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_files_and_folders_are_not_output() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join(".staging")).expect("a folder in it");
        std::fs::write(folder.path().join(".staging/half"), "not yet").expect("writes");
        std::fs::write(folder.path().join("out-1.txt"), "b\na\n").expect("writes");
        assert_eq!(sorted_lines(folder.path()), ["a", "b"]);
        assert_eq!(staged(folder.path()), ["half"]);
    }

    #[test]
    #[should_panic(expected = "1 are too many, such as [\n    \"c\",\n]; 1 are missing, such as [\n    \"b\",\n]")]
    fn differences_are_shown() {
        let lines = |text: &str| text.chars().map(String::from).collect::<Vec<_>>();
        assert_same_lines(&lines("aacd"), &lines("abad"), "letters");
    }
}
