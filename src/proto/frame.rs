//! Frames: a message is its length (32 bits, little-endian) and its encoding (postcard).

use std::io::{self, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Maximum length in bytes of an encoded message. A longer one ends the conversation.
pub const MAX_FRAME: usize = 1 << 20;
/// Length in bytes of the length in front of a message.
pub const HEADER: usize = 4;

/// Error of a message that cannot be sent or understood.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The channel failed.
    #[error("cannot read or write the channel")]
    Channel(#[from] io::Error),
    /// The message is too long.
    #[error("a message of {0} bytes exceeds the limit of {MAX_FRAME} bytes")]
    TooLong(usize),
    /// The bytes are no message of this protocol.
    #[error("a message cannot be decoded")]
    Malformed(#[from] postcard::Error),
    /// Bytes follow the message within its frame.
    #[error("{0} unexpected bytes follow a message")]
    Trailing(usize),
}

/// Encodes a message with its length in front.
///
/// # Errors
/// When the message is too long.
pub fn encode<T: Serialize + ?Sized>(message: &T) -> Result<Vec<u8>, FrameError> {
    let mut frame = postcard::to_extend(message, vec![0; HEADER])?;
    let length = frame.len() - HEADER;
    match u32::try_from(length) {
        Ok(short) if length <= MAX_FRAME => frame[..HEADER].copy_from_slice(&short.to_le_bytes()),
        _ => return Err(FrameError::TooLong(length)),
    }
    Ok(frame)
}

/// Returns the length of the message behind a header.
///
/// # Errors
/// When the message is too long.
pub fn length(header: [u8; HEADER]) -> Result<usize, FrameError> {
    let length = u32::from_le_bytes(header) as usize;
    if length > MAX_FRAME { Err(FrameError::TooLong(length)) } else { Ok(length) }
}

/// Decodes a message without its length. All bytes must belong to it.
///
/// # Errors
/// When the bytes are no such message.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    let (message, rest) = postcard::take_from_bytes(body)?;
    if rest.is_empty() { Ok(message) } else { Err(FrameError::Trailing(rest.len())) }
}

/// Writes a message.
///
/// # Errors
/// When it is too long or the channel fails.
pub fn write<T: Serialize + ?Sized>(channel: &mut impl Write, message: &T) -> Result<(), FrameError> {
    // One write for small messages: concurrent writers of a pipe must not mix them.
    channel.write_all(&encode(message)?)?;
    channel.flush()?;
    Ok(())
}

/// Reads a message; `None` at the end of input.
///
/// # Errors
/// When the input ends within a message, is no message, or fails.
pub fn read<T: DeserializeOwned>(channel: &mut impl Read) -> Result<Option<T>, FrameError> {
    let mut header = [0; HEADER];
    let first = loop {
        match channel.read(&mut header[..1]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => break read?,
        }
    };
    if first == 0 {
        return Ok(None);
    }
    channel.read_exact(&mut header[1..])?;
    // Memory grows with what arrives, and not with what a header announces.
    let length = length(header)?;
    let mut body = Vec::new();
    channel.by_ref().take(length as u64).read_to_end(&mut body)?;
    if body.len() < length {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    decode(&body).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn messages_survive_the_channel(messages in prop::collection::vec(any::<(u64, String)>(), 0..5)) {
            let mut channel = Vec::new();
            for message in &messages {
                write(&mut channel, message).unwrap();
            }
            let mut read_from = channel.as_slice();
            for message in messages {
                prop_assert_eq!(read::<(u64, String)>(&mut read_from).unwrap(), Some(message));
            }
            prop_assert_eq!(read::<(u64, String)>(&mut read_from).unwrap(), None);
        }

        #[test]
        fn hostile_bytes_are_an_error_or_a_message(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = read::<Vec<(u64, String)>>(&mut bytes.as_slice());
        }
    }

    #[test]
    fn long_truncated_and_trailing_messages_are_errors() {
        let header = u32::try_from(MAX_FRAME + 1).unwrap().to_le_bytes();
        assert!(matches!(read::<u8>(&mut &header[..]), Err(FrameError::TooLong(_))));
        assert!(matches!(encode(&vec![0u8; MAX_FRAME + 1]), Err(FrameError::TooLong(_))));
        assert!(matches!(read::<u8>(&mut &[2, 0][..]), Err(FrameError::Channel(_))));
        assert!(matches!(read::<u8>(&mut &[2, 0, 0, 0, 7][..]), Err(FrameError::Channel(_))));
        assert!(matches!(read::<u8>(&mut &[2, 0, 0, 0, 7, 7][..]), Err(FrameError::Trailing(1))));
        assert!(matches!(read::<bool>(&mut &[1, 0, 0, 0, 7][..]), Err(FrameError::Malformed(_))));
    }
}
