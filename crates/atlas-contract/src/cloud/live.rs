//! The real cloud as a subject of the conformance suite: nothing can be made to go wrong, and it
//! costs money.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use atlas_core::{
    AnyProvider, CallContext, Clock, ComputeId, ComputeRequest, Error, ErrorKind, Result,
    SystemClock, Timestamp, Usd, UsdPerHour,
};
use atlas_testkit::conformance::{BoxFuture, Subject};

use super::{BAD_KEY, Cloud};

/// The most that a run may spend.
const CAP: Usd = Usd::from_cents(50);
/// The most machines that a case holds at once.
const AT_ONCE: u32 = 3;

/// A real cloud. No case starts once three machines, held since the run began, would have cost half
/// a dollar.
#[derive(Debug)]
pub struct LiveSubject {
    cloud: Cloud,
    provider: AnyProvider,
    began: Timestamp,
    dearest: Mutex<UsdPerHour>,
}

impl LiveSubject {
    /// The account of the environment's key.
    ///
    /// # Errors
    /// `unauthorized` without a key, naming the variable to set.
    pub fn new(cloud: Cloud) -> Result<Self> {
        let provider = (cloud.live)(None)?;
        Ok(Self {
            cloud,
            provider,
            began: SystemClock.now(),
            dearest: Mutex::default(),
        })
    }

    /// What the run may have cost by now, and the case to come with it.
    fn may_have_cost(&self, dearest: UsdPerHour) -> Usd {
        let held = SystemClock.now().since(self.began) + self.ready_within();
        dearest
            .times(AT_ONCE)
            .cost_of(held)
            .unwrap_or(Usd::from_nanos(i64::MAX))
    }
}

impl Subject for LiveSubject {
    fn fresh(&self) -> BoxFuture<'_, Result<AnyProvider>> {
        Box::pin(async {
            let candidates = self
                .provider
                .candidates(&CallContext::new(), &self.request())
                .await?;
            let price = candidates
                .iter()
                .filter_map(|candidate| candidate.price)
                .max()
                .unwrap_or_default();
            let dearest = {
                let mut dearest = self.dearest.lock().unwrap_or_else(PoisonError::into_inner);
                *dearest = price.max(*dearest);
                *dearest
            };
            if self.may_have_cost(dearest) > CAP {
                return Err(Error::new(
                    ErrorKind::Quota,
                    format!("this run may cost no more than {CAP} dollars"),
                ));
            }
            Ok(self.provider.clone())
        })
    }

    fn with_bad_key(&self) -> Option<AnyProvider> {
        (self.cloud.live)(Some(BAD_KEY)).ok()
    }

    fn request(&self) -> ComputeRequest {
        (self.cloud.request)()
    }

    fn now(&self) -> Timestamp {
        SystemClock.now()
    }

    fn wait(&self, span: Duration) -> BoxFuture<'_, ()> {
        Box::pin(tokio::time::sleep(span))
    }

    fn unknown_id(&self) -> ComputeId {
        ComputeId::new(self.cloud.unknown_id).expect("a plain id")
    }

    fn ready_within(&self) -> Duration {
        Duration::from_secs(5 * 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use atlas_testkit::mock::MockCloud;

    #[tokio::test]
    async fn no_case_starts_that_could_take_the_run_over_its_cap() {
        let cloud = Cloud {
            live: |_| Ok(MockCloud::new(1).provider()),
            ..super::super::runpod::CLOUD
        };
        let mut subject = LiveSubject::new(cloud).unwrap();
        // The mock has no such card: no price, no cost.
        assert!(subject.fresh().await.is_ok());
        *subject.dearest.get_mut().unwrap() = UsdPerHour::new(Usd::from_cents(34));
        assert!(subject.fresh().await.is_ok());
        subject.began = subject.began.saturating_sub(Duration::from_secs(25 * 60));
        assert_eq!(subject.fresh().await.unwrap_err().kind(), ErrorKind::Quota);
    }
}
