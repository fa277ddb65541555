//! Every operation of the RunPod crate besides those of the contract.

use std::future::poll_fn;
use std::time::Duration;

use atlas::runpod::{
    BillingQuery, Bucket, Container, EndpointCpu, EndpointGpu, EndpointRequest, EndpointUpdate,
    PodUpdate, RunPod, TemplateSource, TemplateSpec, WorkerLimits,
};
use atlas_core::{
    CallContext, CloudType, ComputeId, DiskSize, JobRequest, LaunchKey, LogQuery, Port, Provider,
    Result, Secret, Timestamp, VolumeId, VolumeRequest,
};

use atlas_testkit::conformance::Subject;
use atlas_testkit::dialect::runpod as dialect;
use serde_json::{Value, json};

use crate::cloud::{Calls, CloudSubject, unexpected};

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
    let Bodies {
        queue,
        balancer,
        update,
        template,
        renamed,
        pod_update,
    } = Bodies::new();
    let mut billed = BillingQuery::new(
        now.saturating_sub(Duration::from_secs(86_400)),
        now,
        Bucket::Hour,
    );
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

/// A whole life of every kind of thing at the dialect, with the ids it gives.
pub(super) async fn round(runpod: &RunPod, subject: &CloudSubject) -> Result<()> {
    let cx = &subject.cx();
    let Bodies {
        mut queue,
        balancer: mut plain,
        update,
        template,
        renamed,
        pod_update,
    } = Bodies::new();

    let registry = runpod
        .create_registry(cx, "hub", "me", &Secret::new("password"))
        .await?;
    runpod.registry(cx, &registry.id).await?;
    runpod.list_registries(cx).await?;
    let arn = "arn:aws:ecr:eu-west-1:123456789012:repository/infer";
    let delegation = runpod.create_delegation(cx, arn, Some("infer")).await?;
    runpod.list_delegations(cx).await?;
    runpod.revoke_delegation(cx, &delegation.id).await?;

    let made = runpod.create_template(cx, &template).await?;
    runpod.template(cx, &made.id).await?;
    runpod.update_template(cx, &made.id, &renamed).await?;
    runpod.list_templates(cx).await?;
    for source in [
        TemplateSource::Official,
        TemplateSource::Verified,
        TemplateSource::Community,
    ] {
        runpod.list_public_templates(cx, source).await?;
    }
    runpod.delete_template(cx, &made.id).await?;

    let request = VolumeRequest {
        name: "data".to_owned(),
        size: DiskSize::gb(20),
        region: "EU-RO-1".to_owned(),
    };
    let volume = runpod.create_network_volume(cx, &request).await?;
    runpod.network_volume(cx, &volume.id).await?;
    runpod
        .update_network_volume(cx, &volume.id, Some("renamed"), Some(DiskSize::gb(40)))
        .await?;
    let mounted = subject
        .request()
        .region("EU-RO-1")
        .network_volume(volume.id.clone());
    let pod = runpod
        .spawn_compute(cx, &LaunchKey::untracked(), &mounted)
        .await?;
    tokio::time::sleep(MINUTES).await;
    runpod.update_pod(cx, &pod.id, &pod_update).await?;
    runpod.restart_pod(cx, &pod.id).await?;

    queue.network_volumes = vec![volume.id.to_string()];
    plain.template_id = None;
    plain.container = Container::image("acme/server:1");
    for request in [queue, plain] {
        let endpoint = runpod.create_endpoint(cx, &request).await?;
        runpod.endpoint(cx, &endpoint.id).await?;
        runpod.update_endpoint(cx, &endpoint.id, &update).await?;
        runpod.endpoint_workers(cx, &endpoint.id).await?;
        runpod.endpoint_releases(cx, &endpoint.id).await?;
        runpod.list_endpoints(cx).await?;
        runpod.delete_endpoint(cx, &endpoint.id).await?;
    }
    let job = JobRequest::new(dialect::ENDPOINT, json!({ "sleep": 600 }));
    runpod.run_job(cx, &job).await?;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let workers = runpod
        .endpoint_workers(cx, dialect::ENDPOINT)
        .await?
        .workers;
    let worker = workers
        .first()
        .ok_or_else(|| unexpected("a running job has no worker"))?;
    let mut lines = runpod
        .worker_logs(
            cx,
            dialect::ENDPOINT,
            &worker.id,
            &LogQuery::default().tail(5),
        )
        .await?;
    while let Some(line) = poll_fn(|cx| lines.as_mut().poll_next(cx)).await {
        line?;
    }

    let compute = json!({ "gpuTypeId": "NVIDIA L4", "gpuCountPerPod": 2, "podCount": 2 });
    let order = json!({ "name": "fleet", "type": "TRAINING", "image": "x/y:1", "disk": 20,
        "compute": compute });
    clusters(runpod, subject, order).await?;

    tokio::time::sleep(Duration::from_secs(30 * 3600)).await;
    let now = subject.now();
    for bucket in [Bucket::Hour, Bucket::Day, Bucket::Month] {
        let mut query = BillingQuery::new(
            now.saturating_sub(Duration::from_secs(40 * 3600)),
            now,
            bucket,
        );
        runpod.account_billing(cx, &query).await?;
        runpod.serverless_billing(cx, &query).await?;
        runpod.public_endpoint_billing(cx, &query).await?;
        runpod.cluster_billing(cx, &query).await?;
        query.id = Some(pod.id.to_string());
        runpod.pod_billing(cx, &query).await?;
        query.id = Some(volume.id.to_string());
        runpod.volume_billing(cx, &query).await?;
    }
    runpod.terminate(cx, &pod.id).await?;
    tokio::time::sleep(MINUTES).await;
    runpod.delete_network_volume(cx, &volume.id).await?;
    runpod.delete_registry(cx, &registry.id).await
}

/// The crate reads clusters and does not make them: the dialect's answers to that are checked all
/// the same.
async fn clusters(runpod: &RunPod, subject: &CloudSubject, order: Value) -> Result<()> {
    let (cx, base) = (&subject.cx(), "https://api.runpod.io");
    let made = subject
        .send(base, &[("POST", "/v2/clusters", Some(order), 201)])
        .await?;
    let id = made[0]["id"]
        .as_str()
        .ok_or_else(|| unexpected("a cluster without an id"))?
        .to_owned();
    runpod.list_clusters(cx).await?;
    runpod.cluster(cx, &id).await?;
    runpod.cluster_pods(cx, &id).await?;
    let path = format!("/v2/clusters/{id}");
    subject
        .send(
            base,
            &[
                ("PATCH", &path, Some(json!({ "name": "renamed" })), 200),
                ("DELETE", &path, None, 204),
            ],
        )
        .await
        .map(drop)
}

/// Long enough for a pod to run.
const MINUTES: Duration = Duration::from_secs(180);

/// One body of each kind, with every field.
struct Bodies {
    queue: EndpointRequest,
    balancer: EndpointRequest,
    update: EndpointUpdate,
    template: TemplateSpec,
    renamed: TemplateSpec,
    pod_update: PodUpdate,
}

impl Bodies {
    fn new() -> Self {
        let mut container = Container::image("acme/worker:2.1.0");
        container.args = Some("--port 8000".to_owned());
        container.disk = Some(DiskSize::gb(20));
        container.env.insert("TOKEN".to_owned(), Secret::new("t"));
        container.ports = vec![Port::http(8000), Port::tcp(22)];

        let mut queue = EndpointRequest::queue("queue");
        queue.container = container.clone();
        queue.gpu = Some(EndpointGpu::pools(["ADA_24", "AMPERE_24"]));
        let mut workers = WorkerLimits::default();
        (workers.min, workers.max, workers.idle_timeout) =
            (Some(0), Some(3), Some(Duration::from_secs(10)));
        queue.workers = workers.clone();
        queue.flashboot = Some("FLASHBOOT".to_owned());
        queue.data_centres = vec!["EU-RO-1".to_owned()];
        let mut balancer = EndpointRequest::load_balancer("balancer", 4);
        balancer.template_id = Some("tpl0000001".to_owned());
        balancer.cpu = vec![EndpointCpu {
            id: "cpu3c".to_owned(),
            vcpu_count: 2,
        }];
        let mut update = EndpointUpdate::default();
        (update.name, update.workers, update.timeout) = (
            Some("renamed".to_owned()),
            Some(workers),
            Some(Duration::from_secs(60)),
        );
        update
            .container
            .env
            .insert("A".to_owned(), Secret::new("1"));

        let mut template = TemplateSpec::new("template", "acme/worker:2.1.0");
        template.container = container.clone();
        template.volume = Some((DiskSize::gb(20), "/workspace".to_owned()));
        template.serverless = Some(false);
        let mut renamed = TemplateSpec::default();
        renamed.name = Some("renamed".to_owned());

        let mut pod_update = PodUpdate::default();
        (pod_update.name, pod_update.locked) = (Some("renamed".to_owned()), Some(false));
        Self {
            queue,
            balancer,
            update,
            template,
            renamed,
            pod_update,
        }
    }
}
