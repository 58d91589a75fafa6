//! What clients say in SCRAM.

use base64::{Engine, engine::general_purpose::STANDARD};

/// Bytes of a message of a client at most.
const MESSAGE_BYTES_MAX: usize = 4096;

/// Bytes of a client's nonce at most.
const NONCE_BYTES_MAX: usize = 512;

/// The first message of a client: `n,,n=user,r=nonce`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ClientFirst<'a> {
    /// `n,,` or `y,,`, perhaps with the name of whom the client wants to be.
    pub(super) header: &'a str,
    /// What is behind it, which is part of what is signed.
    pub(super) bare: &'a str,
    /// The user name, with commas and equals signs in their places.
    pub(super) user: String,
    pub(super) nonce: &'a str,
}

/// The last message of a client: `c=biws,r=nonce,p=proof`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ClientFinal<'a> {
    /// The header of the first message, again.
    pub(super) header: Vec<u8>,
    /// All but the proof, which is part of what is signed.
    pub(super) without_proof: &'a str,
    pub(super) nonce: &'a str,
    pub(super) proof: [u8; 32],
}

impl<'a> ClientFirst<'a> {
    pub(super) fn parse(message: &'a [u8]) -> Result<ClientFirst<'a>, &'static str> {
        let text = text(message)?;
        let (flag, rest) = text.split_once(',').ok_or("the header is not whole")?;
        match flag {
            "n" | "y" => {}
            _ if flag.starts_with("p=") => return Err("channel binding is not supported"),
            _ => return Err("the header has no flag for channel binding"),
        }
        let (other, bare) = rest.split_once(',').ok_or("the header is not whole")?;
        let header = &text[..text.len() - bare.len()];
        let mut fields = bare.split(',');
        let name = fields.next().and_then(|field| field.strip_prefix("n="));
        let name = name.ok_or("there is no user name where it belongs")?;
        let nonce = fields.next().and_then(|field| field.strip_prefix("r=")).ok_or("there is no nonce")?;
        let user = unescape(name).ok_or("the user name is not escaped as it has to be")?;
        // Nobody acts for somebody else here.
        if !other.is_empty() && other.strip_prefix("a=") != Some(name) {
            return Err("the client wants to be another user than it proves");
        }
        let is_printable = nonce.bytes().all(|byte| byte.is_ascii_graphic());
        if nonce.is_empty() || nonce.len() > NONCE_BYTES_MAX || !is_printable {
            return Err("the nonce is empty, too long, or not printable");
        }
        Ok(ClientFirst { header, bare, user, nonce })
    }
}

impl<'a> ClientFinal<'a> {
    pub(super) fn parse(message: &'a [u8]) -> Result<ClientFinal<'a>, &'static str> {
        let text = text(message)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or("there is no proof")?;
        let mut fields = without_proof.split(',');
        let header = fields.next().and_then(|field| field.strip_prefix("c=")).ok_or("there is no header")?;
        let nonce = fields.next().and_then(|field| field.strip_prefix("r=")).ok_or("there is no nonce")?;
        let header = STANDARD.decode(header).map_err(|_| "the header is not base64")?;
        let proof = STANDARD.decode(proof).ok().and_then(|proof| proof.try_into().ok());
        let proof = proof.ok_or("the proof is not base64 of 32 bytes")?;
        Ok(ClientFinal { header, without_proof, nonce, proof })
    }
}

fn text(message: &[u8]) -> Result<&str, &'static str> {
    if message.len() > MESSAGE_BYTES_MAX {
        return Err("the message has more than 4096 bytes");
    }
    std::str::from_utf8(message).map_err(|_| "the message is not UTF-8")
}

/// `=2C` stands for a comma and `=3D` for an equals sign.
fn unescape(name: &str) -> Option<String> {
    let mut parts = name.split('=');
    let mut user = parts.next()?.to_owned();
    for part in parts {
        let (sign, rest) = match (part.strip_prefix("2C"), part.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (None, Some(rest)) => ('=', rest),
            (None, None) => return None,
        };
        user.push(sign);
        user.push_str(rest);
    }
    (!user.is_empty()).then_some(user)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn first_messages_are_read_or_refused() {
        for (text, user) in [
            ("n,,n=user,r=abc", "user"),
            ("y,,n=user,r=abc,ext=1", "user"),
            ("n,a=user,n=user,r=abc", "user"),
            ("n,,n=a=2Cb=3Dc,r=abc", "a,b=c"),
        ] {
            let first = ClientFirst::parse(text.as_bytes()).unwrap();
            assert_eq!((first.user.as_str(), first.nonce), (user, "abc"), "{text}");
            assert_eq!(format!("{}{}", first.header, first.bare), text);
        }
        for text in [
            "",
            "n",
            "n,,",
            "n,,n=,r=abc",
            "n,,n=user",
            "n,,n=user,r=",
            "n,,n=user,r=a b",
            "n,,r=abc,n=user",
            "n,,n=us=er,r=abc",
            "n,,m=ext,n=user,r=abc",
            "n,a=other,n=user,r=abc",
            "p=tls-unique,,n=user,r=abc",
            "x,,n=user,r=abc",
        ] {
            assert!(ClientFirst::parse(text.as_bytes()).is_err(), "{text}");
        }
        let long = format!("n,,n=user,r={}", "a".repeat(NONCE_BYTES_MAX + 1));
        assert!(ClientFirst::parse(long.as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..60), text in "[nyp=,ac2CD3r]{0,30}") {
            for bytes in [bytes, text.into_bytes()] {
                let _ = (ClientFirst::parse(&bytes), ClientFinal::parse(&bytes));
            }
        }
    }
}
