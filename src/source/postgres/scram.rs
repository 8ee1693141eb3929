//! SCRAM-SHA-256 (RFC 7677), the client's side, without channel binding.
//!
//! A password is taken as it is: what SASLprep would change of one (compatibility characters, odd spaces) is refused by the
//! server as wrong.

use std::num::NonZeroU32;

use aws_lc_rs::{constant_time, digest, hmac, pbkdf2};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The mechanism's name.
pub const NAME: &str = "SCRAM-SHA-256";

/// So many rounds may a server ask for; PostgreSQL's default is 4096.
const ROUNDS: u32 = 10_000_000;

/// A conversation that has begun.
pub struct Scram {
    nonce: String,
    /// What the server must answer in the end.
    signature: Vec<u8>,
}

impl Scram {
    /// With a nonce that was never used: printable, and no comma.
    pub fn new(nonce: String) -> Scram {
        Scram {
            nonce,
            signature: Vec::new(),
        }
    }

    /// What to say first.
    pub fn first(&self) -> String {
        format!("n,,{}", self.bare())
    }

    /// PostgreSQL knows the user already.
    fn bare(&self) -> String {
        format!("n=,r={}", self.nonce)
    }

    /// What to answer to the server's challenge. The error: what is wrong with it.
    pub fn answer(&mut self, challenge: &[u8], password: &str) -> Result<String, &'static str> {
        const BAD: &str = "the server's challenge is none of SCRAM";
        let challenge = std::str::from_utf8(challenge).map_err(|_| BAD)?;
        let field = |name: &str| challenge.split(',').find_map(|part| part.strip_prefix(name));
        let (nonce, salt) = (field("r=").ok_or(BAD)?, field("s=").ok_or(BAD)?);
        let rounds: u32 = field("i=").and_then(|rounds| rounds.parse().ok()).ok_or(BAD)?;
        let rounds = NonZeroU32::new(rounds)
            .filter(|rounds| rounds.get() <= ROUNDS)
            .ok_or(BAD)?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err("the server's challenge is not for us");
        }
        let salt = STANDARD.decode(salt).map_err(|_| BAD)?;
        let mut salted = [0; digest::SHA256_OUTPUT_LEN];
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            rounds,
            &salt,
            password.as_bytes(),
            &mut salted,
        );
        let sign = |key: &[u8], text: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text);
        let client_key = sign(&salted, b"Client Key");
        let stored_key = digest::digest(&digest::SHA256, client_key.as_ref());
        // `biws` is the head of the first message, "n,,".
        let without_proof = format!("c=biws,r={nonce}");
        let said = format!("{},{challenge},{without_proof}", self.bare());
        let signature = sign(stored_key.as_ref(), said.as_bytes());
        let proof: Vec<u8> = client_key
            .as_ref()
            .iter()
            .zip(signature.as_ref())
            .map(|(a, b)| a ^ b)
            .collect();
        let server_key = sign(&salted, b"Server Key");
        self.signature = sign(server_key.as_ref(), said.as_bytes()).as_ref().to_vec();
        Ok(format!("{without_proof},p={}", STANDARD.encode(proof)))
    }

    /// Whether the server knows the password too, by its last word.
    pub fn is_proven(&self, last: &[u8]) -> bool {
        let signature = last
            .strip_prefix(b"v=")
            .and_then(|signature| STANDARD.decode(signature).ok());
        !self.signature.is_empty()
            && signature
                .is_some_and(|signature| constant_time::verify_slices_are_equal(&signature, &self.signature).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The conversation of RFC 7677, but for the user's name, which PostgreSQL leaves empty: proof and signature were worked
    /// out by Python's hashlib.
    #[test]
    fn a_conversation_proves_both_sides() {
        let mut scram = Scram::new("rOprNGfwEbeRWgbNEkqO".into());
        assert_eq!(scram.first(), "n,,n=,r=rOprNGfwEbeRWgbNEkqO");
        let challenge = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let answer = scram.answer(challenge, "pencil").unwrap();
        assert_eq!(
            answer,
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=qvT2SWdEH5Q06albL+hjSYuUhCG7VndFyzIb7CK4n9k="
        );
        assert!(scram.is_proven(b"v=3HO6Qt1M4MKJrmlKaoOqLAI0/0TV0HZe7J9H3MBtSOg="));
        assert!(
            !scram.is_proven(b"v=AAAA")
                && !scram.is_proven(b"e=other-error")
                && !Scram::new("x".into()).is_proven(b"v=")
        );
        for bad in [
            "",
            "r=other,s=AA==,i=1",
            "r=rOprNGfwEbeRWgbNEkqO,s=AA==,i=1",
            "r=rOprNGfwEbeRWgbNEkqOx,s=AA==,i=0",
        ] {
            assert!(scram.answer(bad.as_bytes(), "pencil").is_err(), "{bad}");
        }
    }
}
