//! The provider contract: what a cloud must do, and the handle through which it is called.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use futures_core::Stream;

use crate::candidate::Candidate;
use crate::capabilities::{Capabilities, Capability};
use crate::compute::Compute;
use crate::context::CallContext;
use crate::error::{Error, Result};
use crate::gpu::GpuType;
use crate::ids::{ComputeId, ProviderId, VolumeId};
use crate::job::{Job, JobRef, JobRequest};
use crate::launch_key::{LaunchKey, TrackedKey};
use crate::listing::{ListFilter, Listing, Presence};
use crate::request::ComputeRequest;
use crate::resource::{
    AccountLimits, ComputeSpend, LogLine, LogQuery, NetworkVolume, SpendQuery, Support,
    VolumeRequest,
};

/// A boxed stream of results that can be sent between tasks.
pub type BoxStream<T> = Pin<Box<dyn Stream<Item = T> + Send>>;

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Declares the contract once and derives from it the object-safe twin, its blanket implementation
/// and the handle's plain methods.
///
/// There are three groups: `required` (every provider implements them), `optional` (the default
/// answers unsupported, naming the capability), and methods that are answered without I/O. The
/// handle's methods with additional checks are written out below.
macro_rules! contract {
    (
        required { $($(#[$rdoc:meta])* $rop:ident($($rarg:ident: &$rty:ty),*) -> $rout:ty;)* }
        optional { $($(#[$odoc:meta])* $oop:ident($($oarg:ident: &$oty:ty),*) -> $oout:ty,
            $cap:ident;)* }
    ) => {
        /// What a cloud must do. Implement this; call through [`AnyProvider`].
        ///
        /// One value is one account: it holds one credential. Optional groups default to
        /// `unsupported`; declare a capability in [`Provider::capabilities`] exactly when you
        /// implement it (the conformance suite checks both ways).
        pub trait Provider: Debug + Send + Sync + 'static {
            /// The kind of cloud.
            fn id(&self) -> &ProviderId;

            /// What this provider can do. Constant for the life of the value; must not do I/O.
            fn capabilities(&self) -> Capabilities;

            /// This cloud's visibility bound and rate limits, unless an account's configuration
            /// overrides them.
            fn limits(&self) -> AccountLimits {
                AccountLimits::default()
            }

            /// Checks for what this particular cloud would refuse, before any request.
            ///
            /// # Errors
            /// `validation` or `unsupported`, naming the field.
            fn check(&self, _request: &ComputeRequest) -> Result<()> {
                Ok(())
            }

            /// The supporting objects that a machine for this request needs, in the order in which
            /// they are made. Pure.
            ///
            /// # Errors
            /// `validation`, when the request contradicts them.
            fn supports(&self, _key: &LaunchKey,
                _request: &ComputeRequest) -> Result<Vec<Support>> {
                Ok(Vec::new())
            }

            $($(#[$rdoc])* fn $rop(&self, cx: &CallContext $(,
                $rarg: &$rty)*) -> impl Future<Output = $rout> + Send;)*

            $($(#[$odoc])* fn $oop(&self, _cx: &CallContext $(,
                $oarg: &$oty)*) -> impl Future<Output = $oout> + Send {
                $(let _ = $oarg;)*
                async { Err(Error::unsupported(Capability::$cap.as_str(),
                    "this provider cannot do that")) }
            })*
        }

        trait Erased: Debug + Send + Sync {
            fn id(&self) -> &ProviderId;
            fn capabilities(&self) -> Capabilities;
            fn limits(&self) -> AccountLimits;
            fn check(&self, request: &ComputeRequest) -> Result<()>;
            fn supports(&self, key: &LaunchKey, request: &ComputeRequest) -> Result<Vec<Support>>;
            $(fn $rop<'a>(&'a self, cx: &'a CallContext $(, $rarg: &'a $rty)*) -> BoxFuture<'a,
                $rout>;)*
            $(fn $oop<'a>(&'a self, cx: &'a CallContext $(, $oarg: &'a $oty)*) -> BoxFuture<'a,
                $oout>;)*
        }

        impl<P: Provider> Erased for P {
            fn id(&self) -> &ProviderId {
                Provider::id(self)
            }

            fn capabilities(&self) -> Capabilities {
                Provider::capabilities(self)
            }

            fn limits(&self) -> AccountLimits {
                Provider::limits(self)
            }

            fn check(&self, request: &ComputeRequest) -> Result<()> {
                Provider::check(self, request)
            }

            fn supports(&self, key: &LaunchKey, request: &ComputeRequest) -> Result<Vec<Support>> {
                Provider::supports(self, key, request)
            }

            $(fn $rop<'a>(&'a self, cx: &'a CallContext $(, $rarg: &'a $rty)*) -> BoxFuture<'a,
                $rout> {
                Box::pin(Provider::$rop(self, cx $(, $rarg)*))
            })*
            $(fn $oop<'a>(&'a self, cx: &'a CallContext $(, $oarg: &'a $oty)*) -> BoxFuture<'a,
                $oout> {
                Box::pin(Provider::$oop(self, cx $(, $oarg)*))
            })*
        }
    };
}

contract! {
    required {
        /// The owner of the API key as the cloud reports it, or a keyed hash of the key: equal for
        /// equal accounts, and never the key itself.
        ///
        /// # Errors
        /// Like any read.
        identity() -> Result<String>;

        /// The candidates for this request, best first, with prices. An empty list means that
        /// everything that fits is sold out.
        ///
        /// # Errors
        /// Like any read; `validation` if no offer of this cloud could ever fit.
        candidates(request: &ComputeRequest) -> Result<Vec<Candidate>>;

        /// Makes exactly one machine-creating call. Returns when the cloud has accepted the order,
        /// not when the machine runs.
        ///
        /// # Errors
        /// The error's [`Outcome`](crate::Outcome) says whether a machine may exist nevertheless.
        /// If it is `Unknown`, search for the launch key before ordering again.
        ///
        /// # Cancel safety
        /// Not cancel safe: a dropped future may leave a machine billing. Run it in a task of its
        /// own.
        spawn_compute(key: &LaunchKey, request: &ComputeRequest) -> Result<Compute>;

        /// Reads one machine.
        ///
        /// # Errors
        /// `not_found` proves nothing by itself: see [`Provider::presence`].
        get_compute(id: &ComputeId) -> Result<Compute>;

        /// Lists all machines of the account, to the last page.
        ///
        /// # Errors
        /// If not even the first page could be read. A walk that fails later is an incomplete
        /// [`Listing`].
        list_compute(filter: &ListFilter) -> Result<Listing>;

        /// Reads this id and reports what the answer proves, by the rules of this cloud's
        /// documentation. Never fails.
        presence(id: &ComputeId) -> Presence;

        /// Deletes a machine. Idempotent: if it is already gone, the call succeeds.
        ///
        /// # Errors
        /// After an error, assume that the machine is still alive.
        terminate(id: &ComputeId) -> Result<()>;

        /// The price list: every GPU, tier and region, with stock if the cloud reports it.
        ///
        /// # Errors
        /// Like any read.
        list_gpu_types() -> Result<Vec<GpuType>>;
    }
    optional {
        /// Stops a machine without deleting it. Its disks may continue to bill.
        ///
        /// # Errors
        /// `conflict` when its state does not allow it.
        stop(id: &ComputeId) -> Result<()>, Stop;

        /// Starts a stopped machine. Success means accepted, not running.
        ///
        /// # Errors
        /// `no_capacity` if its host has no free GPU any more.
        start(id: &ComputeId) -> Result<()>, Start;

        /// Makes a supporting object, or finds the existing one of that name. Returns it with its
        /// id.
        ///
        /// # Errors
        /// Idempotent by name: the call may be repeated after any error.
        ensure_support(key: &LaunchKey, support: &Support) -> Result<Support>, GlobalNetworking;

        /// Deletes a supporting object. If it is already gone, the call succeeds.
        ///
        /// # Errors
        /// Idempotent: the call may be repeated after any error.
        release_support(support: &Support) -> Result<()>, GlobalNetworking;

        /// Reads a machine's log.
        ///
        /// # Errors
        /// Like any read. The stream's items can fail too; the stream ends after an error.
        logs(id: &ComputeId, query: &LogQuery) -> Result<BoxStream<Result<LogLine>>>, Logs;

        /// Submits a serverless job. Retry class `Create`: never repeated unless it provably never
        /// left.
        ///
        /// # Errors
        /// Like `spawn_compute`: the outcome says whether the job may run nevertheless.
        run_job(request: &JobRequest) -> Result<Job>, Serverless;

        /// Reads a job.
        ///
        /// # Errors
        /// `not_found` for an unknown, expired, or very fresh job.
        get_job(job: &JobRef) -> Result<Job>, Serverless;

        /// Cancels a job.
        ///
        /// # Errors
        /// Like any idempotent call.
        cancel_job(job: &JobRef) -> Result<Job>, Serverless;

        /// Streams the output chunks of a job, each once, until the job ends. If the job fails, the
        /// stream ends with an error.
        ///
        /// # Errors
        /// Like any read.
        stream_job(job: &JobRef) -> Result<BoxStream<Result<serde_json::Value>>>, JobStreaming;

        /// Every network volume of the account.
        ///
        /// # Errors
        /// Like any read.
        list_network_volumes() -> Result<Vec<NetworkVolume>>, NetworkVolumes;

        /// Creates a network volume. It bills until deleted. Class `Create`.
        ///
        /// # Errors
        /// The outcome says whether the volume may exist nevertheless.
        create_network_volume(request: &VolumeRequest) -> Result<NetworkVolume>, NetworkVolumes;

        /// Deletes a network volume with its data. Idempotent.
        ///
        /// # Errors
        /// `conflict` while a machine mounts it.
        delete_network_volume(id: &VolumeId) -> Result<()>, NetworkVolumes;

        /// What the cloud billed for machines.
        ///
        /// # Errors
        /// Like any read.
        compute_spend(query: &SpendQuery) -> Result<Vec<ComputeSpend>>, Spend;
    }
}

/// A handle to any provider, built-in or user-defined. Cheap to clone.
///
/// Every method adds the operation and the provider to its error, and refuses what the provider
/// cannot honour before anything is sent.
#[derive(Clone, Debug)]
pub struct AnyProvider(Arc<dyn Erased>);

impl AnyProvider {
    /// Wraps a provider.
    pub fn new(provider: impl Provider) -> Self {
        Self(Arc::new(provider))
    }

    /// See [`Provider::id`].
    #[must_use]
    pub fn id(&self) -> &ProviderId {
        self.0.id()
    }

    /// See [`Provider::capabilities`].
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    /// See [`Provider::limits`].
    #[must_use]
    pub fn limits(&self) -> AccountLimits {
        self.0.limits()
    }

    /// Checks everything about a request that can be checked without asking the cloud.
    ///
    /// # Errors
    /// `validation` or `unsupported`, naming the field or capability.
    pub fn check(&self, request: &ComputeRequest) -> Result<()> {
        request
            .validate()
            .and_then(|()| self.capabilities().check(request))
            .and_then(|()| self.0.check(request))
            .map_err(|error| error.during(self.id(), "check"))
    }

    /// See [`Provider::supports`].
    ///
    /// # Errors
    /// `validation`, when the request contradicts them.
    pub fn supports(&self, key: &LaunchKey, request: &ComputeRequest) -> Result<Vec<Support>> {
        self.0.supports(key, request)
    }

    /// See [`Provider::spawn_compute`]. Refuses what the provider cannot honour, without sending
    /// it.
    ///
    /// # Errors
    /// See [`Provider::spawn_compute`].
    pub async fn spawn_compute(
        &self,
        cx: &CallContext,
        key: &LaunchKey,
        request: &ComputeRequest,
    ) -> Result<Compute> {
        self.check(request)?;
        let made = self.0.spawn_compute(cx, key, request).await;
        made.map(|compute| Compute {
            auth: request.credential.clone(),
            ..compute
        })
        .map_err(|error| error.during(self.id(), "spawn_compute"))
    }

    /// See [`Provider::candidates`]. Refuses what the provider cannot honour before anything is
    /// sent.
    ///
    /// # Errors
    /// See [`Provider::candidates`].
    pub async fn candidates(
        &self,
        cx: &CallContext,
        request: &ComputeRequest,
    ) -> Result<Vec<Candidate>> {
        self.check(request)?;
        self.0
            .candidates(cx, request)
            .await
            .map_err(|error| error.during(self.id(), "candidates"))
    }

    /// See [`Provider::presence`].
    pub async fn presence(&self, cx: &CallContext, id: &ComputeId) -> Presence {
        match self.0.presence(cx, id).await {
            Presence::NoAnswer(error) => Presence::NoAnswer(error.during(self.id(), "presence")),
            proved => proved,
        }
    }

    /// Finds every machine that carries this key in any of its carriers. This resolves an unknown
    /// outcome.
    ///
    /// # Errors
    /// See [`Provider::list_compute`].
    pub async fn find_by_launch_key(&self, cx: &CallContext, key: &TrackedKey) -> Result<Listing> {
        let filter = ListFilter::launch_key(*key);
        let found = self
            .0
            .list_compute(cx, &filter)
            .await
            .map_err(|error| error.during(self.id(), "find_by_launch_key"))?;
        Ok(found.filtered(&filter))
    }

    /// See [`Provider::list_compute`]. The answer is filtered again here.
    ///
    /// # Errors
    /// See [`Provider::list_compute`].
    pub async fn list_compute(&self, cx: &CallContext, filter: &ListFilter) -> Result<Listing> {
        let found = self
            .0
            .list_compute(cx, filter)
            .await
            .map_err(|error| error.during(self.id(), "list_compute"))?;
        Ok(found.filtered(filter))
    }

    /// The serverless operations, if this provider supports them.
    #[must_use]
    pub fn jobs(&self) -> Option<Jobs<'_>> {
        self.capabilities()
            .has(Capability::Serverless)
            .then_some(Jobs(self))
    }

    /// The network volume operations, if this provider supports them.
    #[must_use]
    pub fn network_volumes(&self) -> Option<NetworkVolumes<'_>> {
        self.capabilities()
            .has(Capability::NetworkVolumes)
            .then_some(NetworkVolumes(self))
    }
}

macro_rules! forward {
    ($($handle:ident { $($op:ident($($arg:ident: $ty:ty),*) -> $out:ty, $cap:expr;)* })*) => {
        $(impl $handle {
            $(
                #[doc = concat!("See [`Provider::", stringify!($op), "`].")]
                ///
                /// # Errors
                #[doc = concat!("See [`Provider::", stringify!($op),
                    "`]; `unsupported` without a request where the capability is not declared.")]
                pub async fn $op(&self, cx: &CallContext $(, $arg: $ty)*) -> Result<$out> {
                    let needed: Option<Capability> = $cap;
                    needed.map_or(Ok(()),
                        |capability| self.capabilities().require(capability)).map_err(|error| error.during(self.id(), stringify!($op)))?;
                    self.0.$op(cx $(, $arg)*).await.map_err(|error| error.during(self.id(),
                        stringify!($op)))
                }
            )*
        })*
    };
}

forward! {
    AnyProvider {
        identity() -> String, None;
        get_compute(id: &ComputeId) -> Compute, None;
        terminate(id: &ComputeId) -> (), None;
        list_gpu_types() -> Vec<GpuType>, None;
        stop(id: &ComputeId) -> (), Some(Capability::Stop);
        start(id: &ComputeId) -> (), Some(Capability::Start);
        ensure_support(key: &LaunchKey, support: &Support) -> Support, None;
        release_support(support: &Support) -> (), None;
        logs(id: &ComputeId, query: &LogQuery) -> BoxStream<Result<LogLine>>,
            Some(Capability::Logs);
        compute_spend(query: &SpendQuery) -> Vec<ComputeSpend>, Some(Capability::Spend);
    }
}

macro_rules! view {
    ($(#[$doc:meta])* $view:ident { $($op:ident($($arg:ident: $ty:ty),*) -> $out:ty;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $view<'a>(&'a AnyProvider);

        impl $view<'_> {
            $(
                #[doc = concat!("See [`Provider::", stringify!($op), "`].")]
                ///
                /// # Errors
                #[doc = concat!("See [`Provider::", stringify!($op), "`].")]
                pub async fn $op(&self, cx: &CallContext $(, $arg: $ty)*) -> Result<$out> {
                    self.0.0.$op(cx $(, $arg)*).await.map_err(|error| error.during(self.0.id(),
                        stringify!($op)))
                }
            )*
        }
    };
}

view! {
    /// The serverless operations of a provider that supports them.
    Jobs {
        run_job(request: &JobRequest) -> Job;
        get_job(job: &JobRef) -> Job;
        cancel_job(job: &JobRef) -> Job;
        stream_job(job: &JobRef) -> BoxStream<Result<serde_json::Value>>;
    }
}
view! {
    /// The network volume operations of a provider that supports them.
    NetworkVolumes {
        list_network_volumes() -> Vec<NetworkVolume>;
        create_network_volume(request: &VolumeRequest) -> NetworkVolume;
        delete_network_volume(id: &VolumeId) -> ();
    }
}
