//! HTTP/1.1 as a server answers it (RFC 9112): where its head ends, how long its body is, and what
//! stands in a chunked one.

use std::io;

use bytes::Bytes;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING,
};
use hyper::{Method, Response, StatusCode};

/// The most of a head, or of trailers, that is kept.
const MAX_HEAD: usize = 64 * 1024;
const MAX_HEADERS: usize = 100;

/// The head of an answer, and how many bytes it took. `None` while it is incomplete.
pub(super) fn head(bytes: &[u8]) -> io::Result<Option<(Response<()>, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Response::new(&mut headers);
    let length = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD => return Ok(None),
        _ => return Err(invalid()),
    };
    let mut response = Response::new(());
    *response.status_mut() = parsed
        .code
        .and_then(|code| StatusCode::from_u16(code).ok())
        .ok_or_else(invalid)?;
    *response.headers_mut() = fields(parsed.headers)?;
    if parsed.version == Some(0) {
        // Of another hop, and without keep-alive.
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(Some((response, length)))
}

fn fields(parsed: &[httparse::Header<'_>]) -> io::Result<HeaderMap> {
    let mut headers = HeaderMap::with_capacity(parsed.len());
    for field in parsed {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| invalid())?;
        headers.append(
            name,
            HeaderValue::from_bytes(field.value).map_err(|_| invalid())?,
        );
    }
    Ok(headers)
}

/// How an answer's body ends.
#[derive(Debug)]
pub(super) enum Framing {
    /// After so many bytes.
    Length(u64),
    Chunked(Chunks),
    /// The body ends when the connection does.
    Close,
}

impl Framing {
    /// RFC 9112 §6.3. Lengths that contradict each other are an error: who picks one may pick
    /// another than the client does.
    pub(super) fn of(asked: &Method, answer: &Response<()>) -> io::Result<Self> {
        let status = answer.status();
        if *asked == Method::HEAD
            || status == StatusCode::NO_CONTENT
            || status == StatusCode::NOT_MODIFIED
        {
            return Ok(Self::Length(0));
        }
        if let Some(coding) = answer
            .headers()
            .get_all(TRANSFER_ENCODING)
            .iter()
            .next_back()
        {
            let last = coding
                .to_str()
                .map_err(|_| invalid())?
                .rsplit(',')
                .next()
                .unwrap_or_default();
            let chunked = last.trim().eq_ignore_ascii_case("chunked");
            return Ok(if chunked {
                Self::Chunked(Chunks::default())
            } else {
                Self::Close
            });
        }
        let mut lengths = answer.headers().get_all(CONTENT_LENGTH).iter();
        let Some(first) = lengths.next() else {
            return Ok(Self::Close);
        };
        if lengths.any(|other| other != first) || !first.as_bytes().iter().all(u8::is_ascii_digit) {
            return Err(invalid());
        }
        first
            .to_str()
            .ok()
            .and_then(|text| text.parse().ok())
            .map(Self::Length)
            .ok_or_else(invalid)
    }

    /// True when nothing more belongs to the body.
    pub(super) fn is_done(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunks) => chunks.state == State::Done,
            Self::Close => false,
        }
    }
}

/// What a piece of a chunked body means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    Data(&'a [u8]),
    /// The end, with what stands there.
    End(HeaderMap),
    /// Nothing yet.
    More,
}

/// Reads a chunked body as it comes.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    state: State,
    trailers: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    FirstDigit,
    Size(u64),
    Extension(u64),
    SizeEnd(u64),
    Data(u64),
    DataCr,
    DataLf,
    Trailers,
    Done,
}

impl Chunks {
    /// Takes the next piece off the beginning of `bytes`.
    pub(super) fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> io::Result<Piece<'a>> {
        while let Some((&byte, rest)) = bytes.split_first() {
            self.state = match self.state {
                State::Data(left) => {
                    let whole: &'a [u8] = bytes;
                    let length = usize::try_from(left).unwrap_or(usize::MAX).min(whole.len());
                    let (data, rest) = whole.split_at(length);
                    *bytes = rest;
                    let left = left - length as u64;
                    self.state = if left == 0 {
                        State::DataCr
                    } else {
                        State::Data(left)
                    };
                    return Ok(Piece::Data(data));
                }
                State::Trailers => {
                    *bytes = rest;
                    self.trailers.push(byte);
                    if let Some(trailers) = self.ended()? {
                        self.state = State::Done;
                        return Ok(Piece::End(trailers));
                    }
                    continue;
                }
                State::Done => return Ok(Piece::More),
                other => other.after(byte)?,
            };
            *bytes = rest;
        }
        Ok(Piece::More)
    }

    fn ended(&self) -> io::Result<Option<HeaderMap>> {
        if self.trailers == b"\r\n" {
            return Ok(Some(HeaderMap::new()));
        }
        if !self.trailers.ends_with(b"\r\n\r\n") {
            return if self.trailers.len() < MAX_HEAD {
                Ok(None)
            } else {
                Err(invalid())
            };
        }
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        match httparse::parse_headers(&self.trailers, &mut headers) {
            Ok(httparse::Status::Complete((_, parsed))) => fields(parsed).map(Some),
            _ => Err(invalid()),
        }
    }
}

impl State {
    /// The state after a byte that is no data.
    fn after(self, byte: u8) -> io::Result<Self> {
        let digit = char::from(byte).to_digit(16).map(u64::from);
        Ok(match (self, byte, digit) {
            (Self::FirstDigit, _, Some(digit)) => Self::Size(digit),
            // Sixteen digits fit, the next would not.
            (Self::Size(size), _, Some(digit)) if size >> 60 == 0 => Self::Size(size << 4 | digit),
            (Self::Size(size), b'\r', _) | (Self::Extension(size), b'\r', _) => Self::SizeEnd(size),
            (Self::Size(size), b';' | b' ' | b'\t', _) => Self::Extension(size),
            (Self::Extension(size), _, _) if byte != b'\n' => Self::Extension(size),
            (Self::SizeEnd(0), b'\n', _) => Self::Trailers,
            (Self::SizeEnd(size), b'\n', _) => Self::Data(size),
            (Self::DataCr, b'\r', _) => Self::DataLf,
            (Self::DataLf, b'\n', _) => Self::FirstDigit,
            _ => return Err(invalid()),
        })
    }
}

/// A chunk on its way to a server: what comes before the data, and after.
pub(super) fn chunk(length: usize) -> (Bytes, Bytes) {
    (
        Bytes::from(format!("{length:x}\r\n")),
        Bytes::from_static(b"\r\n"),
    )
}

pub(super) fn invalid() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the server's answer is not HTTP/1.1",
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(text: &str) -> Response<()> {
        head(text.as_bytes()).unwrap().unwrap().0
    }

    /// Reads a chunked body that comes in pieces of this size. What was left over is the last.
    fn read(text: &str, size: usize) -> io::Result<(String, Option<HeaderMap>, usize)> {
        let (mut chunks, mut data, mut over) = (Chunks::default(), vec![], 0);
        let mut end = None;
        for mut bytes in text.as_bytes().chunks(size) {
            loop {
                match chunks.next(&mut bytes)? {
                    Piece::Data(piece) => data.extend_from_slice(piece),
                    Piece::End(trailers) => end = Some(trailers),
                    Piece::More => break,
                }
            }
            over += bytes.len();
        }
        Ok((String::from_utf8(data).unwrap(), end, over))
    }

    #[test]
    fn a_chunked_body_reads_the_same_however_it_is_cut() {
        let text =
            "5\r\nhello\r\n1;name=value\r\n \r\n00a \r\nworld 1234\r\n0\r\nx-sum: 1\r\n\r\nnext";
        for size in 1..text.len() {
            let (data, trailers, over) = read(text, size).unwrap();
            assert_eq!(
                (data.as_str(), over),
                ("hello world 1234", 4),
                "in pieces of {size}"
            );
            assert_eq!(trailers.unwrap()["x-sum"], "1");
        }
        assert_eq!(
            read("0\r\n\r\n", 1).unwrap(),
            (String::new(), Some(HeaderMap::new()), 0)
        );
        assert_eq!(read("3\r\nab", 9).unwrap(), ("ab".to_owned(), None, 0));
    }

    #[test]
    fn what_is_not_chunked_is_an_error_and_no_guess() {
        for text in [
            "g\r\n",
            "\r\n",
            "-1\r\n",
            "1\nx",
            "1\r\nxy",
            "1\r\nx\n",
            "11111111111111111\r\n",
            "1;\n",
            "0\r\nbad trailer\r\n\r\n",
        ] {
            assert!(read(text, 100).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_length_of_a_body_is_where_rfc_9112_puts_it() {
        let framing = |method: Method, text: &str| Framing::of(&method, &answer(text));
        let ok = |fields: &str| framing(Method::GET, &format!("HTTP/1.1 200 OK\r\n{fields}\r\n"));
        assert!(matches!(
            ok("content-length: 5\r\n"),
            Ok(Framing::Length(5))
        ));
        assert!(matches!(
            ok("content-length: 5\r\ncontent-length: 5\r\n"),
            Ok(Framing::Length(5))
        ));
        assert!(ok("content-length: 5\r\ncontent-length: 6\r\n").is_err());
        assert!(ok("content-length: +5\r\n").is_err());
        assert!(ok("content-length: 99999999999999999999\r\n").is_err());
        assert!(matches!(
            ok("content-length: 5\r\ntransfer-encoding: gzip, Chunked\r\n"),
            Ok(Framing::Chunked(_))
        ));
        assert!(matches!(
            ok("transfer-encoding: gzip\r\n"),
            Ok(Framing::Close)
        ));
        assert!(matches!(ok(""), Ok(Framing::Close)));
        assert!(matches!(
            framing(Method::HEAD, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"),
            Ok(Framing::Length(0))
        ));
        assert!(matches!(
            framing(Method::GET, "HTTP/1.1 304 x\r\ncontent-length: 5\r\n\r\n"),
            Ok(Framing::Length(0))
        ));
    }

    #[test]
    fn a_head_is_read_when_it_is_whole_and_refused_when_it_is_none() {
        let text = b"HTTP/1.1 200 OK\r\nx: 1\r\n\r\nrest";
        assert!(head(&text[..20]).unwrap().is_none());
        let (response, length) = head(text).unwrap().unwrap();
        assert_eq!(
            (response.headers()["x"].as_bytes(), length),
            (&b"1"[..], text.len() - 4)
        );
        assert!(head(b"SSH-2.0-OpenSSH\r\n").is_err());
        assert!(
            head(&[b"HTTP/1.1 200 OK\r\nx: ", vec![b'y'; MAX_HEAD].as_slice()].concat()).is_err()
        );
        assert_eq!(
            answer("HTTP/1.0 200 OK\r\n\r\n").headers()[CONNECTION],
            "close"
        );
    }

    proptest! {
        #[test]
        fn what_is_written_chunked_reads_back_however_it_is_cut(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..5),
                size in 1usize..50,
        ) {
            let mut text = vec![];
            for piece in &pieces {
                let (before, after) = chunk(piece.len());
                text.extend([&before[..], piece, &after[..]].concat());
            }
            text.extend_from_slice(b"0\r\n\r\n");
            let (mut chunks, mut data, mut ends) = (Chunks::default(), vec![], 0);
            for mut bytes in text.chunks(size) {
                loop {
                    match chunks.next(&mut bytes).unwrap() {
                        Piece::Data(piece) => data.extend_from_slice(piece),
                        Piece::End(_) => ends += 1,
                        Piece::More => break,
                    }
                }
            }
            prop_assert_eq!((data, ends), (pieces.concat(), 1));
        }

        #[test]
        fn no_bytes_panic_or_hang(bytes: Vec<u8>,
            near in "HTTP/1.1 [0-9]{3} ?\r\n([a-z-]{1,20}: ?[a-z0-9]{0,20}\r\n){0,3}\r\n",
                size in "[0-9a-f;\r\n x]{0,40}") {
            let _ = head(&bytes);
            if let Ok(Some((answer, length))) = head(near.as_bytes()) {
                prop_assert!(length <= near.len());
                let _ = Framing::of(&Method::GET, &answer);
            }
            for mut bytes in [&bytes[..], size.as_bytes()] {
                let mut chunks = Chunks::default();
                let mut steps = 0;
                while chunks.next(&mut bytes).is_ok_and(|piece| piece != Piece::More) {
                    steps += 1;
                    prop_assert!(steps <= 100);
                }
            }
        }
    }
}
