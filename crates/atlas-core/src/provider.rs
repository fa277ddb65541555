//! The contract: what a cloud must do, and the one handle through which it is called.

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

/// A stream of answers that can be sent between tasks.
pub type BoxStream<T> = Pin<Box<dyn Stream<Item = T> + Send>>;

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Declares the contract once, and from it the object-safe twin, its blanket implementation and the
/// handle's plain methods.
///
/// Three groups: `required` (every provider writes them), `optional` (default: unsupported, naming
/// the capability), and what is answered without I/O. The handle's methods that check more than the
/// operation's name are written out below.
macro_rules! contract {
    (
        required { $($(#[$rdoc:meta])* $rop:ident($($rarg:ident: &$rty:ty),*) -> $rout:ty;)* }
        optional { $($(#[$odoc:meta])* $oop:ident($($oarg:ident: &$oty:ty),*) -> $oout:ty, $cap:ident;)* }
    ) => {
        /// What a cloud must do. Implement this; call through [`AnyProvider`].
        ///
        /// One value is one account: it holds one credential. Optional groups default to
        /// `unsupported`; declare a capability in [`Provider::capabilities`] exactly when you
        /// implement it (the conformance suite checks both ways).
        pub trait Provider: Debug + Send + Sync + 'static {
            /// Which kind of cloud this is.
            fn id(&self) -> &ProviderId;

            /// What this provider can do. Constant for the life of the value; must not do I/O.
            fn capabilities(&self) -> Capabilities;

            /// How long this cloud needs and how often it may be called, unless an account's
            /// configuration says otherwise.
            fn limits(&self) -> AccountLimits {
                AccountLimits::default()
            }

            /// What this cloud in particular would refuse, found before any request.
            ///
            /// # Errors
            /// `validation` or `unsupported`, naming the field.
            fn check(&self, _request: &ComputeRequest) -> Result<()> {
                Ok(())
            }

            /// The supporting objects that a machine for this request needs, in the order of their
            /// making. Pure.
            ///
            /// # Errors
            /// `validation`, when the request contradicts them.
            fn supports(&self, _key: &LaunchKey, _request: &ComputeRequest) -> Result<Vec<Support>> {
                Ok(Vec::new())
            }

            $($(#[$rdoc])* fn $rop(&self, cx: &CallContext $(, $rarg: &$rty)*) -> impl Future<Output = $rout> + Send;)*

            $($(#[$odoc])* fn $oop(&self, _cx: &CallContext $(, $oarg: &$oty)*) -> impl Future<Output = $oout> + Send {
                $(let _ = $oarg;)*
                async { Err(Error::unsupported(Capability::$cap.as_str(), "this provider cannot do that")) }
            })*
        }

        trait Erased: Debug + Send + Sync {
            fn id(&self) -> &ProviderId;
            fn capabilities(&self) -> Capabilities;
            fn limits(&self) -> AccountLimits;
            fn check(&self, request: &ComputeRequest) -> Result<()>;
            fn supports(&self, key: &LaunchKey, request: &ComputeRequest) -> Result<Vec<Support>>;
            $(fn $rop<'a>(&'a self, cx: &'a CallContext $(, $rarg: &'a $rty)*) -> BoxFuture<'a, $rout>;)*
            $(fn $oop<'a>(&'a self, cx: &'a CallContext $(, $oarg: &'a $oty)*) -> BoxFuture<'a, $oout>;)*
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

            $(fn $rop<'a>(&'a self, cx: &'a CallContext $(, $rarg: &'a $rty)*) -> BoxFuture<'a, $rout> {
                Box::pin(Provider::$rop(self, cx $(, $rarg)*))
            })*
            $(fn $oop<'a>(&'a self, cx: &'a CallContext $(, $oarg: &'a $oty)*) -> BoxFuture<'a, $oout> {
                Box::pin(Provider::$oop(self, cx $(, $oarg)*))
            })*
        }
    };
}

contract! {
    required {
        /// Who the key belongs to, as the cloud says, or a keyed hash of the key: equal for equal
        /// accounts, never the key itself.
        ///
        /// # Errors
        /// As any read.
        identity() -> Result<String>;

        /// What could be tried for this request, best first, with prices. Empty means nothing fits:
        /// sold out.
        ///
        /// # Errors
        /// As any read; `validation` when no offer of this cloud could ever fit.
        candidates(request: &ComputeRequest) -> Result<Vec<Candidate>>;

        /// Makes exactly one machine-creating call; returns when the cloud accepted the order, not
        /// when the machine runs.
        ///
        /// # Errors
        /// The error's [`Outcome`](crate::Outcome) says whether a machine may exist all the same.
        /// If it is `Unknown`, look for the launch key before ordering again.
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

        /// Walks the machines of the account, to the last page.
        ///
        /// # Errors
        /// When not even the first page could be read. A walk broken off later is an incomplete
        /// [`Listing`].
        list_compute(filter: &ListFilter) -> Result<Listing>;

        /// What a point read of this id proves, in the way this cloud's documentation counts as
        /// proof. Never fails.
        presence(id: &ComputeId) -> Presence;

        /// Ends a machine for good. Idempotent: one that is gone already is a success.
        ///
        /// # Errors
        /// After an error the machine must be taken to be alive.
        terminate(id: &ComputeId) -> Result<()>;

        /// The price list: every GPU, tier and region, with stock where the cloud says.
        ///
        /// # Errors
        /// As any read.
        list_gpu_types() -> Result<Vec<GpuType>>;
    }
    optional {
        /// Stops a machine and keeps it. It may go on billing for its disks.
        ///
        /// # Errors
        /// `conflict` when its state does not allow it.
        stop(id: &ComputeId) -> Result<()>, Stop;

        /// Starts a stopped machine. Accepted does not mean running.
        ///
        /// # Errors
        /// `no_capacity` when its host has no free GPU any more.
        start(id: &ComputeId) -> Result<()>, Start;

        /// Makes a supporting object, or finds the one of that name; answers it with its id.
        ///
        /// # Errors
        /// Idempotent by name: any error may be repeated.
        ensure_support(key: &LaunchKey, support: &Support) -> Result<Support>, GlobalNetworking;

        /// Releases a supporting object; one that is gone already is a success.
        ///
        /// # Errors
        /// Idempotent: any error may be repeated.
        release_support(support: &Support) -> Result<()>, GlobalNetworking;

        /// Reads a machine's log.
        ///
        /// # Errors
        /// As any read; the stream's items can fail too, and it ends after an error.
        logs(id: &ComputeId, query: &LogQuery) -> Result<BoxStream<Result<LogLine>>>, Logs;

        /// Submits a serverless job. Class `Create`: never repeated unless it provably never left.
        ///
        /// # Errors
        /// As `spawn_compute`: the outcome says whether the job may run all the same.
        run_job(request: &JobRequest) -> Result<Job>, Serverless;

        /// Reads a job.
        ///
        /// # Errors
        /// `not_found` for an unknown, expired, or very fresh job.
        get_job(job: &JobRef) -> Result<Job>, Serverless;

        /// Cancels a job.
        ///
        /// # Errors
        /// As any idempotent call.
        cancel_job(job: &JobRef) -> Result<Job>, Serverless;

        /// The chunks of a job as they come, each once, until it ends. A job that ends badly ends
        /// the stream with an error.
        ///
        /// # Errors
        /// As any read.
        stream_job(job: &JobRef) -> Result<BoxStream<Result<serde_json::Value>>>, JobStreaming;

        /// Every network volume of the account.
        ///
        /// # Errors
        /// As any read.
        list_network_volumes() -> Result<Vec<NetworkVolume>>, NetworkVolumes;

        /// Creates a network volume. It bills until deleted. Class `Create`.
        ///
        /// # Errors
        /// The outcome says whether it may exist all the same.
        create_network_volume(request: &VolumeRequest) -> Result<NetworkVolume>, NetworkVolumes;

        /// Deletes a network volume and all that is on it. Idempotent.
        ///
        /// # Errors
        /// `conflict` while a machine mounts it.
        delete_network_volume(id: &VolumeId) -> Result<()>, NetworkVolumes;

        /// What the cloud billed for machines.
        ///
        /// # Errors
        /// As any read.
        compute_spend(query: &SpendQuery) -> Result<Vec<ComputeSpend>>, Spend;
    }
}

/// Any provider, ours or yours. Cheap to clone.
///
/// Every method names the operation and the provider in its error, and refuses before any request
/// what the provider cannot honour.
#[derive(Clone, Debug)]
pub struct AnyProvider(Arc<dyn Erased>);

impl AnyProvider {
    /// Takes a provider.
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

    /// Everything that can be found wrong with a request without asking the cloud.
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

    /// See [`Provider::candidates`]. Refuses what the provider cannot honour, without asking.
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

    /// Every machine that carries this key in any of its carriers: what resolves an unknown
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

    /// See [`Provider::list_compute`]. What the cloud answers is filtered again here.
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

    /// The serverless group, if this provider has it.
    #[must_use]
    pub fn jobs(&self) -> Option<Jobs<'_>> {
        self.capabilities()
            .has(Capability::Serverless)
            .then_some(Jobs(self))
    }

    /// The network volumes group, if this provider has it.
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
                #[doc = concat!("See [`Provider::", stringify!($op), "`]; `unsupported` without a request where the capability is not declared.")]
                pub async fn $op(&self, cx: &CallContext $(, $arg: $ty)*) -> Result<$out> {
                    let needed: Option<Capability> = $cap;
                    needed.map_or(Ok(()), |capability| self.capabilities().require(capability)).map_err(|error| error.during(self.id(), stringify!($op)))?;
                    self.0.$op(cx $(, $arg)*).await.map_err(|error| error.during(self.id(), stringify!($op)))
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
        logs(id: &ComputeId, query: &LogQuery) -> BoxStream<Result<LogLine>>, Some(Capability::Logs);
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
                    self.0.0.$op(cx $(, $arg)*).await.map_err(|error| error.during(self.0.id(), stringify!($op)))
                }
            )*
        }
    };
}

view! {
    /// The serverless group of a provider that has it.
    Jobs {
        run_job(request: &JobRequest) -> Job;
        get_job(job: &JobRef) -> Job;
        cancel_job(job: &JobRef) -> Job;
        stream_job(job: &JobRef) -> BoxStream<Result<serde_json::Value>>;
    }
}
view! {
    /// The network volumes of a provider that has them.
    NetworkVolumes {
        list_network_volumes() -> Vec<NetworkVolume>;
        create_network_volume(request: &VolumeRequest) -> NetworkVolume;
        delete_network_volume(id: &VolumeId) -> ();
    }
}
