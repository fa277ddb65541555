//! The clouds of this build, in one list: the re-exports of their crates, and how each is built
//! from settings that all of them share.

use std::sync::Arc;

use atlas_core::config::ApiKey;
use atlas_core::{AccountLimits, AnyProvider, Clock, Entropy, Result};
use atlas_http::Transport;

/// A cloud that this build has a provider for.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct BuiltInCloud {
    /// The cloud's name: its feature, and the account that is used when none is configured.
    pub name: &'static str,
    /// The environment variables that may hold the API key, in the order of precedence.
    pub key_variables: &'static [&'static str],
    /// The fields of [`CloudSettings`] that have a meaning for this cloud and not for others.
    pub own_settings: &'static [&'static str],
    build: fn(&CloudSettings) -> Result<AnyProvider>,
}

/// Settings of a provider, the same for every cloud.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct CloudSettings {
    /// The API key and its origin.
    pub key: Option<ApiKey>,
    /// Another base URL of the cloud's API.
    pub base_url: Option<String>,
    /// The account's limits; the cloud's own if unset.
    pub limits: Option<AccountLimits>,
    /// Another transport than hyper.
    pub transport: Option<Transport>,
    /// The clock; the system's if unset.
    pub clock: Option<Arc<dyn Clock>>,
    /// The source of randomness; the system's if unset.
    pub entropy: Option<Arc<dyn Entropy>>,
    /// Whether settings that are unset here are read from the environment.
    pub environment: bool,
    /// For a simulated cloud whose time runs this many times as fast: the paces that the real cloud
    /// is known to require shrink by it.
    pub speed: Option<u32>,
    /// RunPod: allows spot pods.
    pub spot: bool,
    /// Fly: the organisation, by its slug.
    pub org: Option<String>,
    /// Fly: the app in which machines without ports are made.
    pub app: Option<String>,
}

impl BuiltInCloud {
    /// Builds the cloud's provider.
    ///
    /// # Errors
    /// `unauthorized` without a key; `validation` for a setting that the cloud does not accept.
    pub fn provider(&self, settings: &CloudSettings) -> Result<AnyProvider> {
        (self.build)(settings)
    }
}

/// Every cloud of this build.
#[must_use]
pub fn built_in_clouds() -> &'static [BuiltInCloud] {
    BUILT_IN
}

/// The cloud of this name, if it is in this build.
#[must_use]
pub fn built_in_cloud(name: &str) -> Option<&'static BuiltInCloud> {
    BUILT_IN.iter().find(|cloud| cloud.name == name)
}

/// Lists the clouds: the feature, the crate and its provider, the variables of its key, the name of
/// its base URL's setter, its own settings, and the function that applies them.
macro_rules! clouds {
    ($($feature:tt as $module:ident = $krate:ident::$provider:ident {
        keys: [$($key:ident),+ $(,)?],
        url: $url:ident,
        own: $own:expr,
        apply: $apply:ident,
    })*) => {
        $(
            #[cfg(feature = $feature)]
            pub use $krate as $module;
            #[cfg(feature = $feature)]
            pub use $krate::$provider;
        )*

        const BUILT_IN: &[BuiltInCloud] = &[$(
            #[cfg(feature = $feature)]
            BuiltInCloud {
                name: $feature,
                key_variables: &[$($krate::$key),+],
                own_settings: $own,
                build: |settings| {
                    let mut builder = $krate::$provider::builder();
                    if let Some(key) = &settings.key {
                        builder = builder.api_key_from(key.clone());
                    }
                    if let Some(url) = &settings.base_url {
                        builder = builder.$url(url);
                    }
                    if let Some(limits) = settings.limits {
                        builder = builder.limits(limits);
                    }
                    if let Some(transport) = &settings.transport {
                        builder = builder.transport(transport.clone());
                    }
                    if let Some(clock) = &settings.clock {
                        builder = builder.clock(clock.clone());
                    }
                    if let Some(entropy) = &settings.entropy {
                        builder = builder.entropy(entropy.clone());
                    }
                    builder = $apply(builder, settings);
                    if settings.environment {
                        builder = builder.environment(|name| std::env::var(name).ok());
                    }
                    builder.build().map(AnyProvider::new)
                },
            },
        )*];
    };
}

clouds! {
    "runpod" as runpod = atlas_provider_runpod::RunPod {
        keys: [API_KEY_ENV],
        url: control_url,
        own: if cfg!(feature = "runpod-graphql") { &["spot"] } else { &[] },
        apply: runpods_own,
    }
    "fly" as fly = atlas_provider_fly::Fly {
        keys: [API_KEY_ENV],
        url: base_url,
        own: &["org", "app"],
        apply: flys_own,
    }
    "lambda" as lambda = atlas_provider_lambda::Lambda {
        keys: [API_KEY_ENV, API_KEY_ALIAS_ENV],
        url: base_url,
        own: &[],
        apply: lambdas_own,
    }
    "vast" as vast = atlas_provider_vast::Vast {
        keys: [API_KEY_ENV],
        url: base_url,
        own: &[],
        apply: vasts_own,
    }
}

/// Spot pods exist only in RunPod's GraphQL API.
#[cfg(feature = "runpod")]
fn runpods_own(builder: runpod::RunPodBuilder, settings: &CloudSettings) -> runpod::RunPodBuilder {
    let _ = settings;
    #[cfg(feature = "runpod-graphql")]
    let builder = builder.spot(settings.spot);
    builder
}

#[cfg(feature = "fly")]
fn flys_own(mut builder: fly::FlyBuilder, settings: &CloudSettings) -> fly::FlyBuilder {
    if let Some(org) = &settings.org {
        builder = builder.org(org);
    }
    if let Some(app) = &settings.app {
        builder = builder.app(app);
    }
    match settings.speed {
        Some(speed) => {
            let pace = atlas_http::Pace::every(seconds_over(1, speed)).burst(3);
            builder.paces(pace, pace)
        }
        None => builder,
    }
}

#[cfg(feature = "lambda")]
fn lambdas_own(builder: lambda::LambdaBuilder, settings: &CloudSettings) -> lambda::LambdaBuilder {
    match settings.speed {
        Some(speed) => builder.launch_pace(atlas_http::Pace::every(seconds_over(15, speed))),
        None => builder,
    }
}

/// The paces of Vast's endpoints are long as measured by a fast clock, so they are left out.
#[cfg(feature = "vast")]
fn vasts_own(builder: vast::VastBuilder, settings: &CloudSettings) -> vast::VastBuilder {
    match settings.speed {
        Some(_) => builder.endpoint_paces(false),
        None => builder,
    }
}

#[cfg(any(feature = "fly", feature = "lambda"))]
fn seconds_over(seconds: u64, speed: u32) -> std::time::Duration {
    std::time::Duration::from_secs(seconds) / speed.max(1)
}
