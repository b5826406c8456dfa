//! Which files a path stands for: a file, all files of a folder, or those that match a pattern with `*`.
//!
//! Invariants:
//! * a file's name (its split) is the path as the job gives it with the pattern filled in, so it does not change with the folder
//!   that the host runs in;
//! * hidden files and folders are left out unless the pattern itself begins with a dot: `.staging` holds what is not committed.

use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    pub name: String,
    pub path: PathBuf,
}

/// The files there are now, by name. Nothing there is an empty list.
pub fn list(base: &Path, pattern: &str) -> Result<Vec<Listed>> {
    let trimmed = pattern.trim_end_matches('/');
    let mut found = Vec::new();
    if trimmed.contains('*') {
        let start = if trimmed.starts_with('/') { "/" } else { "" };
        let parts: Vec<&str> = trimmed.split('/').filter(|part| !part.is_empty()).collect();
        expand(base, start.to_owned(), &parts, &mut found)?;
    } else {
        match std::fs::metadata(base.join(trimmed)) {
            Ok(metadata) if metadata.is_dir() => expand(base, format!("{trimmed}/"), &["*"], &mut found)?,
            Ok(_) => found.push(Listed { name: trimmed.to_owned(), path: base.join(trimmed) }),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    found.sort();
    Ok(found)
}

fn expand(base: &Path, prefix: String, parts: &[&str], found: &mut Vec<Listed>) -> Result<()> {
    let Some((part, rest)) = parts.split_first() else { return Ok(()) };
    if !part.contains('*') {
        if rest.is_empty() {
            let name = format!("{prefix}{part}");
            let path = base.join(&name);
            if path.is_file() {
                found.push(Listed { name, path });
            }
            return Ok(());
        }
        return expand(base, format!("{prefix}{part}/"), rest, found);
    }
    let folder = if prefix.is_empty() { base.to_owned() } else { base.join(&prefix) };
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let file_name = entry.file_name();
        let Some(file_name) = file_name.to_str() else {
            let message = format!("{} has a name that is not UTF-8", entry.path().display());
            return Err(Error::new(ErrorKind::InvalidData, message));
        };
        if !matches(part, file_name) {
            continue;
        }
        let name = format!("{prefix}{file_name}");
        if !rest.is_empty() {
            expand(base, format!("{name}/"), rest, found)?;
        } else if entry.path().is_file() {
            found.push(Listed { name, path: entry.path() });
        }
    }
    Ok(())
}

/// Whether a name fits a pattern in which `*` stands for any characters.
fn matches(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        // The earliest fit leaves the most for what follows.
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(base: &Path, pattern: &str) -> Vec<String> {
        list(base, pattern).expect("lists").into_iter().map(|file| file.name).collect()
    }

    #[test]
    fn a_path_is_a_file_a_folder_or_a_pattern() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["b.csv", "a.csv", "a.txt", ".hidden.csv", "x/1.csv", "x/2.csv", "y/1.csv", ".staging/1.csv"] {
            let path = folder.path().join("data").join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(path, "").expect("written");
        }
        let at = |pattern: &str| names(folder.path(), pattern);
        assert_eq!(at("data/a.csv"), ["data/a.csv"]);
        assert_eq!(at("data"), ["data/a.csv", "data/a.txt", "data/b.csv"]);
        assert_eq!(at("data/"), ["data/a.csv", "data/a.txt", "data/b.csv"]);
        assert_eq!(at("data/*.csv"), ["data/a.csv", "data/b.csv"]);
        assert_eq!(at("data/*/1.csv"), ["data/x/1.csv", "data/y/1.csv"]);
        assert_eq!(at("d*/x/*"), ["data/x/1.csv", "data/x/2.csv"]);
        assert_eq!(at("data/.*.csv"), ["data/.hidden.csv"]);
        assert!(at("nothing").is_empty() && at("nothing/*").is_empty() && at("data/a.csv/*").is_empty());
        let absolute = format!("{}/data/b*", folder.path().display());
        assert_eq!(names(Path::new("/elsewhere"), &absolute), [format!("{}/data/b.csv", folder.path().display())]);
    }

    #[test]
    fn stars_stand_for_anything_but_a_leading_dot() {
        for (pattern, name, fits) in [
            ("*", "a", true),
            ("*", ".a", false),
            (".*", ".a", true),
            ("a*", "a", true),
            ("a*a", "a", false),
            ("a*b*c", "axbxbxc", true),
            ("a*b*c", "axbxbx", false),
            ("*.csv", "a.csv.gz", false),
            ("**", "ab", true),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }
}
