//! Every operation of the RunPod crate besides those of the contract.

use std::time::Duration;

use atlas_core::{CallContext, CloudType, ComputeId, DiskSize, LogQuery, Port, Secret, Timestamp, VolumeId};
use atlas_provider_runpod::{
    BillingQuery, Bucket, Container, EndpointCpu, EndpointGpu, EndpointRequest, EndpointUpdate, PodUpdate, RunPod,
    TemplateSource, TemplateSpec, WorkerLimits,
};

use crate::cloud::Calls;

macro_rules! calls {
    ($runpod:expr, $cx:expr; $($operation:ident($($argument:expr),*);)*) => {
        vec![$((stringify!($operation), $runpod.$operation($cx $(, $argument)*).await.map(drop)),)*]
    };
}

/// The ids that calls are about.
pub(super) struct Ids {
    pub(super) pod: ComputeId,
    pub(super) volume: VolumeId,
    pub(super) other: &'static str,
}

pub(super) async fn all(runpod: &RunPod, cx: &CallContext, ids: &Ids, now: Timestamp) -> Calls {
    let Ids { pod, volume, other } = ids;
    let mut container = Container::image("acme/worker:2.1.0");
    container.args = Some("--port 8000".to_owned());
    container.disk = Some(DiskSize::gb(20));
    container.env.insert("TOKEN".to_owned(), Secret::new("t"));
    container.ports = vec![Port::http(8000), Port::tcp(22)];

    let mut queue = EndpointRequest::queue("queue");
    queue.container = container.clone();
    queue.gpu = Some(EndpointGpu::pools(["ADA_24", "AMPERE_24"]));
    let mut workers = WorkerLimits::default();
    (workers.min, workers.max, workers.idle_timeout) = (Some(0), Some(3), Some(Duration::from_secs(10)));
    queue.workers = workers.clone();
    queue.flashboot = Some("FLASHBOOT".to_owned());
    queue.data_centres = vec!["EU-RO-1".to_owned()];
    let mut balancer = EndpointRequest::load_balancer("balancer", 4);
    balancer.template_id = Some("tpl0000001".to_owned());
    balancer.cpu = vec![EndpointCpu { id: "cpu3c".to_owned(), vcpu_count: 2 }];
    let mut update = EndpointUpdate::default();
    (update.name, update.workers, update.timeout) = (Some("renamed".to_owned()), Some(workers), Some(Duration::from_secs(60)));
    update.container.env.insert("A".to_owned(), Secret::new("1"));

    let mut template = TemplateSpec::new("template", "acme/worker:2.1.0");
    template.container = container.clone();
    template.volume = Some((DiskSize::gb(20), "/workspace".to_owned()));
    template.serverless = Some(false);
    let mut renamed = TemplateSpec::default();
    renamed.name = Some("renamed".to_owned());

    let mut pod_update = PodUpdate::default();
    (pod_update.name, pod_update.locked) = (Some("renamed".to_owned()), Some(false));

    let mut billed = BillingQuery::new(now.saturating_sub(Duration::from_secs(86_400)), now, Bucket::Hour);
    let whole = billed.clone();
    billed.id = Some((*other).to_owned());

    calls![runpod, cx;
        ssh_keys();
        set_ssh_keys(&["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA me".to_owned()]);
        update_pod(pod, &pod_update);
        restart_pod(pod);
        catalog_gpus(CloudType::Secure);
        catalog_gpu("NVIDIA L4", CloudType::Secure);
        catalog_cpus();
        catalog_cpu("cpu3c");
        data_centres();
        data_centre("EU-RO-1");
        list_public_templates(TemplateSource::Official);
        list_public_templates(TemplateSource::Community);
        list_clusters();
        cluster(other);
        cluster_pods(other);
        list_endpoints();
        create_endpoint(&queue);
        create_endpoint(&balancer);
        endpoint(other);
        update_endpoint(other, &update);
        endpoint_workers(other);
        endpoint_releases(other);
        worker_logs(other, "worker1", &LogQuery::default().tail(5));
        delete_endpoint(other);
        list_templates();
        create_template(&template);
        template(other);
        update_template(other, &renamed);
        delete_template(other);
        list_registries();
        create_registry("hub", "me", &Secret::new("password"));
        registry(other);
        delete_registry(other);
        list_delegations();
        create_delegation("arn:aws:ecr:eu-west-1:123456789012:repository/infer", Some("infer"));
        revoke_delegation(other);
        network_volume(volume);
        update_network_volume(volume, Some("renamed"), Some(DiskSize::gb(40)));
        account_billing(&whole);
        pod_billing(&billed);
        serverless_billing(&billed);
        public_endpoint_billing(&whole);
        volume_billing(&billed);
        cluster_billing(&billed);
    ]
}
