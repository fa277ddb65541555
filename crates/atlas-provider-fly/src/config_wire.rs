//! The body of a create. Fly silently ignores unknown fields, and a misspelt one could leave a
//! machine running forever. So every field that can be sent is defined here, and no other is ever
//! sent.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Defines structs with optional fields that refuse unknown ones.
macro_rules! strict {
    ($($(#[$doc:meta])* $name:ident { $($field:ident $(as $wire:literal)?: $ty:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(crate) struct $name {
            $(
                #[serde(default, skip_serializing_if = "Option::is_none" $(, rename = $wire)?)]
                pub(crate) $field: Option<$ty>,
            )*
        }
    )*};
}

strict! {
    /// The body of a create.
    CreateMachine {
        name: String,
        region: String,
        config: MachineConfig,
        lease_ttl: u64,
        min_secrets_version: u64,
        skip_launch: bool,
        skip_secrets: bool,
        skip_service_registration: bool,
    }
    MachineConfig {
        auto_destroy: bool,
        cache_drive: CacheDrive,
        checks: BTreeMap<String, Check>,
        disable_machine_autostart: bool,
        dns: Dns,
        env: BTreeMap<String, String>,
        files: Vec<File>,
        guest: Guest,
        image: String,
        init: Init,
        metadata: BTreeMap<String, String>,
        metrics: Metrics,
        mounts: Vec<Mount>,
        restart: Restart,
        rootfs: Rootfs,
        schedule: String,
        services: Vec<Service>,
        standbys: Vec<String>,
        statics: Vec<Static>,
        stop_config: StopConfig,
    }
    Guest {
        cpu_kind: String,
        cpus: u32,
        memory_mb: u32,
        max_memory_mb: u32,
        gpu_kind: String,
        gpus: u32,
        host_dedication_id: String,
        kernel_args: Vec<String>,
        required_host_features: Vec<String>,
    }
    Init {
        exec: Vec<String>,
        entrypoint: Vec<String>,
        cmd: Vec<String>,
        tty: bool,
        swap_size_mb: u32,
        kernel_args: Vec<String>,
    }
    Restart {
        policy: String,
        max_retries: u32,
    }
    Mount {
        volume: String,
        path: String,
        name: String,
        encrypted: bool,
        size_gb: u32,
        size_gb_limit: u32,
        add_size_gb: u32,
        add_size_percent: u32,
        min_add_size_gb: u32,
        extend_threshold_percent: u32,
    }
    Service {
        protocol: String,
        internal_port: u32,
        ports: Vec<ServicePort>,
        autostop: String,
        autostart: bool,
        min_machines_running: u32,
        concurrency: Concurrency,
        checks: Vec<Check>,
        force_instance_key: String,
        force_instance_description: String,
    }
    ServicePort {
        port: u16,
        start_port: u16,
        end_port: u16,
        handlers: Vec<String>,
        force_https: bool,
        http_options: HttpOptions,
        tls_options: TlsOptions,
        proxy_proto_options: ProxyProtoOptions,
    }
    HttpOptions {
        compress: bool,
        h2_backend: bool,
        headers_read_timeout: u64,
        idle_timeout: u64,
        response: HttpResponse,
    }
    HttpResponse {
        headers: BTreeMap<String, Value>,
        pristine: bool,
    }
    TlsOptions {
        alpn: Vec<String>,
        default_self_signed: bool,
        versions: Vec<String>,
    }
    ProxyProtoOptions {
        version: String,
    }
    Concurrency {
        kind as "type": String,
        soft_limit: u32,
        hard_limit: u32,
    }
    Check {
        kind as "type": String,
        purpose as "kind": String,
        port: u16,
        interval: String,
        timeout: String,
        grace_period: String,
        method: String,
        path: String,
        protocol: String,
        headers: Vec<Header>,
        tls_server_name: String,
        tls_skip_verify: bool,
    }
    Header {
        name: String,
        values: Vec<String>,
    }
    File {
        guest_path: String,
        raw_value: String,
        secret_name: String,
        image_config: String,
        mode: u32,
    }
    StopConfig {
        signal: String,
        timeout: String,
    }
    Metrics {
        port: u16,
        path: String,
        https: bool,
    }
    Rootfs {
        persist: String,
        size_gb: u32,
    }
    CacheDrive {
        size_mb: u32,
    }
    Static {
        guest_path: String,
        url_prefix: String,
        index_document: String,
        tigris_bucket: String,
    }
    Dns {
        skip_registration: bool,
        hostname: String,
        hostname_fqdn: String,
        nameservers: Vec<String>,
        searches: Vec<String>,
    }
}
