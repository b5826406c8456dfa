//! Who may do what: bearer tokens (RFC 6750), each with a role.
//!
//! ```text
//!   read:9f86d081884c7d659a2f             may look
//!   write:sha256:2c26b46b68ffc68ff99b...  may change things too; the token itself is nowhere on this machine
//! ```
//!
//! Invariants:
//! * tokens are kept as SHA-256 and compared in constant time, with all of them whatever matches: how long it takes tells nothing;
//! * no error and no log shows a token;
//! * a server without tokens serves everyone, which is for `tidegate serve` to allow or to refuse.

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tidegate_core::limits::{TOKEN_BYTES, TOKENS_MAX};

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// GET and HEAD.
    Read,
    /// Everything.
    Write,
}

struct Token {
    digest: [u8; 32],
    role: Role,
}

/// The tokens that a server accepts.
#[derive(Default)]
pub struct Access {
    tokens: Vec<Token>,
}

/// A list of tokens is not understood. Says the line, never the token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {cause}")]
pub struct AccessError {
    pub line: usize,
    pub cause: String,
}

impl Access {
    /// One token a line (a comma ends one too), `read:TOKEN` or `write:TOKEN`; `#` begins a remark.
    pub fn parse(text: &str) -> Result<Self, AccessError> {
        let mut tokens = Vec::new();
        for (number, line) in text.lines().enumerate() {
            for entry in line.split(',').map(str::trim).filter(|entry| !entry.is_empty() && !line.trim().starts_with('#')) {
                let token = parse_token(entry).map_err(|cause| AccessError { line: number + 1, cause })?;
                if tokens.len() == TOKENS_MAX {
                    let cause = format!("more than {TOKENS_MAX} tokens (tokens_max)");
                    return Err(AccessError { line: number + 1, cause });
                }
                tokens.push(token);
            }
        }
        if tokens.is_empty() {
            return Err(AccessError { line: 1, cause: "there is no token; write `read:TOKEN` or `write:TOKEN`".into() });
        }
        Ok(Self { tokens })
    }

    /// No token is asked for.
    pub fn is_open(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The greatest role among the tokens that this is.
    pub fn role_of(&self, presented: &str) -> Option<Role> {
        let digest: [u8; 32] = Sha256::digest(presented.as_bytes()).into();
        self.tokens.iter().fold(None, |role, token| {
            let same = bool::from(token.digest.ct_eq(&digest));
            role.max(same.then_some(token.role))
        })
    }
}

fn parse_token(entry: &str) -> Result<Token, String> {
    const SHAPE: &str = "write `read:TOKEN` or `write:TOKEN`";
    let (role, token) = entry.split_once(':').ok_or_else(|| format!("has no role: {SHAPE}"))?;
    let role = match role.trim() {
        "read" => Role::Read,
        "write" => Role::Write,
        // What stands there may be a token with a colon in it.
        _ => return Err(format!("the role is neither `read` nor `write`: {SHAPE}")),
    };
    let token = token.trim();
    if let Some(digest) = token.strip_prefix("sha256:") {
        let digest = hex(digest).ok_or("the SHA-256 is not 64 hexadecimal digits")?;
        return Ok(Token { digest, role });
    }
    if !TOKEN_BYTES.contains(&token.len()) {
        let (least, most) = (TOKEN_BYTES.start(), TOKEN_BYTES.end());
        return Err(format!("a token of {} bytes; {least} to {most} are allowed (token_bytes)", token.len()));
    }
    if !is_token(token) {
        return Err("a token has letters, digits and -._~+/= only".into());
    }
    Ok(Token { digest: Sha256::digest(token.as_bytes()).into(), role })
}

/// What can stand in the header `authorization` after `Bearer`.
pub fn is_token(token: &str) -> bool {
    !token.is_empty() && token.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b))
}

fn hex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const READER: &str = "reader-0123456789";
    const WRITER: &str = "writer-0123456789";

    #[test]
    fn tokens_have_roles_and_others_have_none() {
        let access = Access::parse(&format!("# ours\nread:{READER}\n\n write: {WRITER} \n")).unwrap();
        assert_eq!(access.role_of(READER), Some(Role::Read));
        assert_eq!(access.role_of(WRITER), Some(Role::Write));
        for other in ["", "reader", "reader-012345678", "reader-01234567899", &READER.to_uppercase()] {
            assert_eq!(access.role_of(other), None, "{other:?}");
        }
        let both = Access::parse(&format!("write:{READER},read:{READER}")).unwrap();
        assert_eq!(both.role_of(READER), Some(Role::Write), "the greater role counts");
        assert!(Access::default().is_open() && !both.is_open());
    }

    #[test]
    fn a_token_can_be_given_as_its_digest() {
        // printf %s reader-0123456789 | sha256sum
        let digest: String = Sha256::digest(READER).iter().map(|b| format!("{b:02x}")).collect();
        let access = Access::parse(&format!("write:sha256:{digest}")).unwrap();
        assert_eq!(access.role_of(READER), Some(Role::Write));
        assert_eq!(access.role_of(&digest), None, "the digest is no token");
    }

    #[test]
    fn a_list_that_is_wrong_is_refused_with_its_line_and_without_its_secret() {
        let long = format!("read:{}", "x".repeat(513));
        let many = format!("read:{READER}\n").repeat(TOKENS_MAX + 1);
        for (text, line, cause) in [
            ("", 1, "no token"),
            ("# nothing\n", 1, "no token"),
            ("read:0123456789abcdef\nsecretsecretsecret", 2, "no role"),
            ("admin:secretsecretsecret", 1, "neither"),
            ("read:secret", 1, "token_bytes"),
            ("read:secret secret secret", 1, "letters, digits"),
            ("write:sha256:secret", 1, "64 hexadecimal"),
            (&long, 1, "token_bytes"),
            (&many, TOKENS_MAX + 1, "tokens_max"),
        ] {
            let error = Access::parse(text).err().unwrap_or_else(|| panic!("{text:?} is understood"));
            assert_eq!(error.line, line, "{error}");
            assert!(error.to_string().contains(cause), "{error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
