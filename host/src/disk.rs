//! What to do about a disk that says no, in words for the person who reads the error.

use std::error::Error;
use std::io::{self, ErrorKind};

/// The remedy for the first error of the operating system among the causes, if it is one that somebody can mend.
pub fn remedy(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(remedy) = error.downcast_ref::<io::Error>().and_then(of_kind) {
            return Some(remedy);
        }
        cause = error.source();
    }
    None
}

fn of_kind(error: &io::Error) -> Option<&'static str> {
    Some(match error.kind() {
        ErrorKind::StorageFull => "the disk is full: make room on it; nothing that was committed is lost",
        ErrorKind::QuotaExceeded => "the quota is used up: make room or raise it; nothing that was committed is lost",
        ErrorKind::FileTooLarge => "a file may not grow so large here: raise the limit of the process (ulimit -f)",
        ErrorKind::ReadOnlyFilesystem => "the file system is read-only: mount it for writing, and look into why it is not",
        ErrorKind::PermissionDenied => "the host's user may not write there: give it the right to",
        _ => return None,
    })
}

/// As a tail of a message; empty where there is nothing to say.
pub fn advice(error: &(dyn Error + 'static)) -> String {
    remedy(error).map(|remedy| format!(" ({remedy})")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remedy_is_found_behind_other_errors() {
        #[derive(Debug, thiserror::Error)]
        #[error("can't write the segment")]
        struct Outer(#[source] io::Error);

        let full = Outer(io::Error::from_raw_os_error(28));
        assert!(remedy(&full).is_some_and(|remedy| remedy.starts_with("the disk is full")));
        assert!(advice(&Outer(io::Error::from_raw_os_error(30))).contains("read-only"));
        assert_eq!(advice(&Outer(io::Error::other("no idea"))), "");
    }
}
