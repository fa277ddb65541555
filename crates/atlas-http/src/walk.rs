//! A walk over a paged list: the items that were read, and what is missing.

use std::collections::BTreeSet;
use std::future::Future;

use atlas_core::{Error, ErrorKind, Next, Outcome, Result};

/// The readable part of a list.
#[derive(Debug)]
#[non_exhaustive]
pub struct Walk<T> {
    /// The items, in the order of their pages.
    pub items: Vec<T>,
    /// What is missing, and why; `None` if the end was reached.
    pub missing: Option<String>,
}

impl<T> Walk<T> {
    /// The items, for lists that are useless unless complete.
    ///
    /// # Errors
    /// When items are missing.
    pub fn whole(self) -> Result<Vec<T>> {
        let Some(reason) = self.missing else {
            return Ok(self.items);
        };
        let error = Error::new(
            ErrorKind::Provider,
            format!("the list is incomplete: {reason}"),
        );
        Err(error.outcome_is(Outcome::NotApplied(Next::SameLater)))
    }
}

/// One page of a list.
#[derive(Debug)]
pub struct Page<T> {
    /// The items of the page.
    pub items: Vec<T>,
    /// The cursor of the next page; empty or `None` at the end.
    pub next: Option<String>,
    /// What the page reports as missing.
    pub missing: Option<String>,
}

/// Reads page after page to the end, starting with `None`. A later page that fails, one that leads
/// back to an earlier one, and a list of more than `most` pages result in a walk that says what is
/// missing.
///
/// # Errors
/// When not even the first page could be read.
///
/// # Cancel safety
/// As cancel safe as `page`.
pub async fn walk<T, F>(most: usize, mut page: impl FnMut(Option<String>) -> F) -> Result<Walk<T>>
where
    F: Future<Output = Result<Page<T>>>,
{
    let mut walk = Walk {
        items: Vec::new(),
        missing: None,
    };
    let (mut at, mut seen) = (None::<String>, BTreeSet::new());
    for number in 1..=most {
        let read = match page(at.take()).await {
            Ok(read) => read,
            Err(error) if number == 1 => return Err(error),
            Err(error) => {
                walk.missing = Some(format!("page {number} failed: {error}"));
                return Ok(walk);
            }
        };
        walk.items.extend(read.items);
        walk.missing = walk.missing.or(read.missing);
        match read.next.filter(|next| !next.is_empty()) {
            None => return Ok(walk),
            Some(next) if !seen.insert(next.clone()) => {
                walk.missing = Some(format!("page {number} leads back to an earlier one"));
                return Ok(walk);
            }
            next => at = next,
        }
    }
    walk.missing = Some("it does not end".to_owned());
    Ok(walk)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pages of a list by their tokens; `!` fails.
    async fn read(pages: &[(&str, u32, &str)], at: Option<String>) -> Result<Page<u32>> {
        let at = at.unwrap_or_default();
        match pages.iter().find(|(token, ..)| *token == at) {
            Some((_, item, next)) => Ok(Page {
                items: vec![*item],
                next: Some((*next).to_owned()),
                missing: None,
            }),
            None => Err(Error::new(ErrorKind::Unavailable, "no such page")),
        }
    }

    #[tokio::test]
    async fn a_walk_ends_or_says_what_is_missing() {
        for (pages, items, missing) in [
            (
                &[("", 1, "a"), ("a", 2, "b"), ("b", 3, "")][..],
                vec![1, 2, 3],
                None,
            ),
            (
                &[("", 1, "a"), ("a", 2, "a")],
                vec![1, 2],
                Some("page 2 leads back to an earlier one"),
            ),
            (
                &[("", 1, "a"), ("a", 2, "!")],
                vec![1, 2],
                Some("page 3 failed: no such page [unavailable]"),
            ),
        ] {
            let found = walk(9, |at| read(pages, at)).await.unwrap();
            assert_eq!((&found.items, found.missing.as_deref()), (&items, missing));
            assert_eq!(found.whole().ok(), missing.is_none().then_some(items));
        }
        assert!(
            walk(9, |at| read(&[], at)).await.is_err(),
            "a first page that fails is no list at all"
        );
        let endless = |at: Option<String>| async move {
            let next = at.map_or(0, |at| at.len());
            Ok(Page {
                items: vec![next],
                next: Some("x".repeat(next + 1)),
                missing: Some("a region".to_owned()),
            })
        };
        let found = walk(3, endless).await.unwrap();
        assert_eq!(
            (found.items, found.missing.as_deref()),
            (vec![0, 1, 2], Some("it does not end"))
        );
    }
}
