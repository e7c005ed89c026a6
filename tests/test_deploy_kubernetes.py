"""What deploy/kubernetes and deploy/ray tell a cluster is what Kubernetes, KubeRay, Ray and Dagster understand."""

import re
import shutil
import subprocess
import tomllib
from importlib.metadata import version
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._config import process_config, resolve_to_config_type
from dagster._core.instance.config import dagster_instance_config_schema

client = pytest.importorskip("kubernetes.client")
dagster_k8s = pytest.importorskip("dagster_k8s")
configs = pytest.importorskip("dagster_ray.kuberay.configs")
from dagster_k8s.job import construct_dagster_k8s_job  # noqa: E402

from benchmarks import plan  # noqa: E402
from clipcov_assets.assets.groups import GPU_POOL  # noqa: E402
from clipcov_assets.assets.rankings import pool_of_shards  # noqa: E402

REPOSITORY = Path(__file__).parents[1]
KUBERNETES, RAY = REPOSITORY / "deploy/kubernetes", REPOSITORY / "deploy/ray"
APIS = {"v1": "CoreV1Api", "apps/v1": "AppsV1Api", "rbac.authorization.k8s.io/v1": "RbacAuthorizationV1Api"}
KUSTOMIZATION = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
# What the CRDs of KubeRay 1.7 know of a group of nodes; dagster-ray leaves groups unread.
OF_HEAD = {"enableIngress", "headService", "labels", "rayStartParams", "resources", "serviceType", "template"}
OF_WORKERS = {"groupName", "idleTimeoutSeconds", "labels", "maxReplicas", "minReplicas", "numOfHosts", "rayStartParams"}
OF_WORKERS |= {"replicas", "resources", "scaleStrategy", "template"}
OF_AUTOSCALER = {"env", "envFrom", "idleTimeoutSeconds", "image", "imagePullPolicy", "resources", "upscalingMode"}
SECRET = re.compile(r"PASSWORD|TOKEN|SECRET|ACCESS_KEY|WEBHOOK")
GPU = "nvidia.com/gpu"
GIB = 2**30
RATES = plan.default_rates(plan.PROXIES["ViT-B-32"])
POOLS = {"cc3m": plan.SIZES[0], "cc12m": plan.SIZES[1]}


def documents(name):
    return list(yaml.safe_load_all((KUBERNETES / name).read_text()))


OBJECTS = [one for name in KUSTOMIZATION["resources"] for one in documents(name)]
(JOB,), (CLUSTER,) = documents("ray_job.yaml"), documents("ray_cluster.yaml")
(SETTINGS,) = documents("settings.yaml")
FILES = sorted(KUBERNETES.glob("*.yaml"))


def groups(cluster):
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def containers():
    """Every container that a file of ours writes out, by where it is."""
    for one in OBJECTS:
        for container in one.get("spec", {}).get("template", {}).get("spec", {}).get("containers", ()):
            yield one["metadata"]["name"], container
    for name, cluster in (("job", JOB["spec"]["rayClusterSpec"]), ("cluster", CLUSTER["spec"])):
        for group in groups(cluster):
            for container in group["template"]["spec"]["containers"]:
                yield f"{name} {group.get('groupName', 'head')}", container


def strangers(value, kind, place=""):
    """Places in a part of a manifest that Kubernetes' API does not know, or that are of another type there."""
    if match := re.fullmatch(r"list\[(.*)]", kind):
        if not isinstance(value, list):
            return [f"{place}: no list"]
        return [told for number, one in enumerate(value) for told in strangers(one, match[1], f"{place}[{number}]")]
    if match := re.fullmatch(r"dict[(\[]str, ?(.*)[)\]]", kind):
        return [told for name, one in value.items() for told in strangers(one, match[1], f"{place}.{name}")]
    if kind in ("str", "int", "bool"):
        return [] if type(value).__name__ == kind else [f"{place}: {value!r} is no {kind}"]
    if kind == "object":
        return []
    model = getattr(client, kind)
    known = {model.attribute_map[name]: one for name, one in model.openapi_types.items()}
    unknown = [f"{place}.{name}: unknown to {kind}" for name in value if name not in known]
    inner = [strangers(one, known[name], f"{place}.{name}") for name, one in value.items() if name in known]
    return unknown + [told for some in inner for told in some]


def test_a_field_that_kubernetes_does_not_know_is_found():
    pod = {"containers": [{"name": "ray", "enviroment": [], "ports": [{"containerPort": "80"}]}]}
    assert strangers(pod, "V1PodSpec") == [
        ".containers[0].enviroment: unknown to V1Container",
        ".containers[0].ports[0].containerPort: '80' is no int",
    ]


@pytest.mark.parametrize("one", OBJECTS, ids=lambda one: f"{one['kind']} {one['metadata']['name']}")
def test_kubernetes_knows_each_field_of_each_object(one):
    snake = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", one["kind"]).lower()
    api = getattr(client, APIS[one["apiVersion"]])
    assert hasattr(api, f"create_namespaced_{snake}") or hasattr(api, f"create_{snake}")
    assert strangers(one, f"V1{one['kind']}") == []
    client.ApiClient()._ApiClient__deserialize(one, f"V1{one['kind']}")  # refuses an object that lacks a field


@pytest.mark.parametrize("cluster", [JOB["spec"]["rayClusterSpec"], CLUSTER["spec"]], ids=["job", "cluster"])
def test_kuberay_and_kubernetes_know_each_field_of_the_ray_clusters(cluster):
    assert cluster["headGroupSpec"].keys() <= OF_HEAD
    assert all(group.keys() <= OF_WORKERS for group in cluster["workerGroupSpecs"])
    assert cluster["autoscalerOptions"].keys() <= OF_AUTOSCALER
    for group in groups(cluster):
        assert strangers(group["template"], "V1PodTemplateSpec") == []
        assert strangers(group["rayStartParams"], "dict(str, str)") == []


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")
def test_kustomize_renders_every_object_and_the_template_of_ray_jobs():
    told = subprocess.run(["kubectl", "kustomize", KUBERNETES], capture_output=True, text=True, timeout=60)
    assert told.returncode == 0, told.stderr
    rendered = list(yaml.safe_load_all(told.stdout))
    assert len(rendered) == len(OBJECTS) + 1
    for one in rendered:
        assert strangers(one, f"V1{one['kind']}") == []
        assert one["kind"] == "Namespace" or one["metadata"]["namespace"] == "clipcov"
    named = {(one["kind"], one["metadata"]["name"]): one for one in rendered}
    assert yaml.safe_load(named["ConfigMap", "clipcov-ray-job"]["data"]["ray_job.yaml"]) == JOB
    (ours,) = KUSTOMIZATION["images"]
    pages = named["Deployment", "clipcov-pages"]["spec"]["template"]["spec"]["containers"][0]
    assert pages["image"] == f"{ours['newName']}:{ours['newTag']}"


# Ray


def test_dagster_ray_reads_the_template_of_a_ray_job_and_knows_all_its_fields():
    written = documents("ray_job.yaml")[0]["spec"]  # a copy, since dagster-ray changes what it reads
    spec = {snaked(name): value for name, value in written.items()}
    cluster = {snaked(name): value for name, value in spec.pop("ray_cluster_spec").items()}
    cluster["auth_options"] = {snaked(name): value for name, value in cluster["auth_options"].items()}
    read = configs.RayJobConfig(
        metadata=JOB["metadata"], spec=configs.RayJobSpec(**spec, ray_cluster_spec=configs.RayClusterSpec(**cluster))
    )
    assert not read.spec.model_extra and not read.spec.ray_cluster_spec.model_extra
    assert (read.api_version, read.kind) == (JOB["apiVersion"], JOB["kind"])
    made = read.to_k8s(dg.build_op_context(), image="any")["spec"]
    for group in groups(made["rayClusterSpec"]):
        for container in group["template"]["spec"]["containers"]:
            assert (container.pop("image"), container.pop("env")) == ("any", [])
    assert made == JOB["spec"]


def test_a_run_fills_in_the_template_what_it_alone_knows():
    assert JOB["metadata"]["namespace"] == KUSTOMIZATION["namespace"]  # the client of Pipes asks for it
    assert not {"name"} & JOB["metadata"].keys() and not {"entrypoint", "runtimeEnvYAML", "jobId"} & JOB["spec"].keys()
    for group in groups(JOB["spec"]["rayClusterSpec"]):
        assert not any("image" in one for one in group["template"]["spec"]["containers"])  # it is the run's own


def test_a_ray_job_ends_and_is_cleared_away():
    spec = JOB["spec"]
    assert spec["shutdownAfterJobFinishes"] and spec["backoffLimit"] == 0
    assert 0 < spec["preRunningDeadlineSeconds"] < spec["activeDeadlineSeconds"]
    assert spec["ttlSecondsAfterFinished"] > 30  # so long the run reads on after the end


def test_the_standing_cluster_is_that_of_a_ray_job_with_our_image():
    standing = yaml.safe_load(yaml.safe_dump(CLUSTER["spec"]))
    images = [one.pop("image") for group in groups(standing) for one in group["template"]["spec"]["containers"]]
    assert standing == JOB["spec"]["rayClusterSpec"]
    (ours,) = KUSTOMIZATION["images"]
    assert set(images) == {f"{ours['newName']}:{ours['newTag']}"}
    assert f"http://{CLUSTER['metadata']['name']}-head-svc:8265" in (KUBERNETES / "settings.yaml").read_text()


def test_rays_autoscaler_finds_a_head_that_computes_nothing_workers_for_cpus_and_workers_for_gpus():
    autoscaling = pytest.importorskip("ray.autoscaler._private.kuberay.autoscaling_config")
    resource = {**CLUSTER, "metadata": {**CLUSTER["metadata"], "namespace": "clipcov"}}
    found = autoscaling._derive_autoscaling_config_from_ray_cr(resource)
    kinds = found["available_node_types"]
    assert kinds[found["head_node_type"]]["resources"].items() >= {"CPU": 0}.items()
    assert "GPU" not in kinds[found["head_node_type"]]["resources"] and "GPU" not in kinds["cpu"]["resources"]
    assert kinds["cpu"]["resources"]["CPU"] == 8
    assert kinds["gpu"]["resources"].items() >= {"CPU": RATES.known["cores_of_gpu"].value, "GPU": 1}.items()
    assert [kinds[name]["min_workers"] for name in ("cpu", "gpu")] == [0, 0]
    assert found["idle_timeout_minutes"] == CLUSTER["spec"]["autoscalerOptions"]["idleTimeoutSeconds"] / 60


def test_nodes_of_ray_have_shared_memory_for_rays_objects():
    for group in groups(CLUSTER["spec"]):
        pod = group["template"]["spec"]
        (shared,) = (one["emptyDir"] for one in pod["volumes"] if one["name"] == "shared-memory")
        memory = gibibytes(group)
        assert shared["medium"] == "Memory"
        assert 0.3 * memory <= int(shared["sizeLimit"].removesuffix("Gi")) <= 0.5 * memory
        assert {"name": "shared-memory", "mountPath": "/dev/shm"} in pod["containers"][0]["volumeMounts"]


def gibibytes(group):
    return int(group["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"].removesuffix("Gi"))


def test_the_head_has_memory_for_what_a_step_of_the_scale_does_in_one_process_beside_rays_own():
    size, head = POOLS[SETTINGS["data"]["CLIPCOV_SCALE"]], gibibytes(CLUSTER["spec"]["headGroupSpec"]) * GIB
    steps = plan.steps(size, RATES, plan.PROXIES["ViT-B-32"].width)
    driver = max(step.memory.value for step in steps if step.where in ("driver", "GPUs"))
    objects, services = 0.3 * head, 2 * GIB
    assert driver > GIB
    assert driver + objects + services < 0.95 * head, "Ray ends what takes more than 95 % of the memory"


def test_class_shards_are_ranked_beside_each_other_where_a_cluster_ranks_them():
    assert pool_of_shards(SETTINGS["data"]) is None
    assert pool_of_shards({"CLIPCOV_COMPUTE": "ray"}) == pool_of_shards({}) == GPU_POOL


def test_workers_may_be_taken_away_and_the_head_may_not():
    head, *workers = groups(JOB["spec"]["rayClusterSpec"])
    label = "karpenter.sh/capacity-type"
    assert head["template"]["spec"]["nodeSelector"] == {label: "on-demand"}
    assert "tolerations" not in head["template"]["spec"]
    assert all(group["template"]["spec"]["nodeSelector"] == {label: "spot"} for group in workers)
    tolerated = {
        group["groupName"]: {one["key"] for one in group["template"]["spec"]["tolerations"]} for group in workers
    }
    assert tolerated == {"cpu": {"spot"}, "gpu": {"spot", GPU}}


def test_the_cluster_asks_for_the_token_and_is_told_ray_as_it_is_installed():
    for cluster in (JOB["spec"]["rayClusterSpec"], CLUSTER["spec"]):
        assert cluster["authOptions"] == {"mode": "token", "secretName": "clipcov-ray"}
        assert cluster["rayVersion"] == version("ray")
    assert SETTINGS["data"]["RAY_AUTH_MODE"] == "token"


# Dagster


def snaked(name):
    """A field as Dagster spells it: `runtimeEnvYAML` becomes `runtime_env_yaml`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def merged(below, above):
    """Helm's merge of two files of values: mappings grow together, all else is replaced."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return below | {name: merged(below.get(name), value) for name, value in above.items()}


VALUES = yaml.safe_load((KUBERNETES / "dagster_values.yaml").read_text())
WITH_GPU = merged(VALUES, yaml.safe_load((KUBERNETES / "dagster_values_gpu.yaml").read_text()))
BOTH = pytest.mark.parametrize("values", [VALUES, WITH_GPU], ids=["ray", "gpu"])
LAUNCHED = {
    "DAGSTER_HOME": "/opt/dagster/dagster_home",
    "DAGSTER_K8S_INSTANCE_CONFIG_MAP": "clipcov-dagster-instance",
    "DAGSTER_K8S_PG_PASSWORD_SECRET": "clipcov-postgres",
    "DAGSTER_K8S_PIPELINE_RUN_ENV_CONFIGMAP": "clipcov-dagster-pipeline-env",
    "DAGSTER_PG_PASSWORD": "any",
}


def launcher_config(values):
    told = dict(values["runLauncher"]["config"]["k8sRunLauncher"])
    maps, secrets = ([one["name"] for one in told.pop(name)] for name in ("envConfigMaps", "envSecrets"))
    raw = {snaked(name): value for name, value in told.pop("runK8sConfig").items()}
    return {
        **{snaked(name): value for name, value in told.items()},
        "load_incluster_config": True,
        "job_namespace": "clipcov",
        "service_account_name": values["global"]["serviceAccountName"],
        "dagster_home": {"env": "DAGSTER_HOME"},
        "instance_config_map": {"env": "DAGSTER_K8S_INSTANCE_CONFIG_MAP"},
        "postgres_password_secret": {"env": "DAGSTER_K8S_PG_PASSWORD_SECRET"},
        "env_config_maps": [{"env": "DAGSTER_K8S_PIPELINE_RUN_ENV_CONFIGMAP"}, *maps],
        "env_secrets": secrets,
        "run_k8s_config": raw,
    }


def instance(values):
    """The dagster.yaml that the chart makes of its values, as far as they concern it."""
    database, daemon = values["postgresql"], values["dagsterDaemon"]
    storage = {
        "postgres_db": {
            "username": database["postgresqlUsername"],
            "password": {"env": "DAGSTER_PG_PASSWORD"},
            "hostname": database["postgresqlHost"],
            "db_name": database["postgresqlDatabase"],
            "port": database["service"]["port"],
            "scheme": database["postgresqlScheme"],
        }
    }
    storages = {
        "schedule_storage": ("schedule_storage", "PostgresScheduleStorage"),
        "run_storage": ("run_storage", "PostgresRunStorage"),
        "event_log_storage": ("event_log", "PostgresEventLogStorage"),
    }
    retention = {name: one for name, one in values["retention"].items() if name != "enabled"}
    assert values["retention"]["enabled"] and values["concurrency"]["enabled"]
    return {
        **{
            name: {"module": f"dagster_postgres.{module}", "class": kind, "config": storage}
            for name, (module, kind) in storages.items()
        },
        "run_launcher": {
            "module": "dagster_k8s",
            "class": values["runLauncher"]["type"],
            "config": launcher_config(values),
        },
        "run_coordinator": {"module": "dagster.core.run_coordinator", "class": "QueuedRunCoordinator"},
        "compute_logs": values["computeLogManager"]["config"]["customComputeLogManager"],
        "run_monitoring": {snaked(name): value for name, value in daemon["runMonitoring"].items()},
        "run_retries": {snaked(name): value for name, value in daemon["runRetries"].items()},
        "telemetry": values["telemetry"],
        "retention": {snaked(name): {"purge_after_days": one["purgeAfterDays"]} for name, one in retention.items()},
        "concurrency": {
            name: {snaked(key): value for key, value in values["concurrency"][name].items()}
            for name in ("pools", "runs")
        },
        **values["additionalInstanceConfig"],
    }


@pytest.fixture
def in_a_pod(monkeypatch):
    for name, value in LAUNCHED.items():
        monkeypatch.setenv(name, value)


@BOTH
def test_dagster_takes_the_instance_that_the_chart_makes_of_the_values(values, in_a_pod, tmp_path):
    made = instance(values)
    assert process_config(resolve_to_config_type(dagster_instance_config_schema()), made).success
    found = process_config(
        resolve_to_config_type(dagster_k8s.K8sRunLauncher.config_type()), made["run_launcher"]["config"]
    )
    assert found.success, found.errors
    elsewhere = {name: one for name, one in made.items() if not name.endswith("_storage") and name != "run_launcher"}
    (tmp_path / "dagster.yaml").write_text(
        yaml.safe_dump({**elsewhere, "compute_logs": {"module": "dagster", "class": "NoOpComputeLogManager"}})
    )
    with dg.DagsterInstance.from_config(str(tmp_path)) as opened:
        assert opened.run_monitoring_enabled and opened.run_retries_enabled
        assert opened.run_monitoring_start_timeout_seconds == 1800
        assert opened.get_concurrency_config().run_queue_config.max_concurrent_runs == 10
        assert opened.get_concurrency_config().pool_config.default_pool_limit == 4


def test_the_instance_differs_from_the_repositorys_in_its_places_and_in_how_much_runs_at_once():
    own, made = yaml.safe_load((REPOSITORY / "dagster.yaml").read_text()), instance(VALUES)
    assert own.pop("storage").keys() == {"sqlite"}
    assert own.pop("concurrency")["pools"]["granularity"] == made.pop("concurrency")["pools"]["granularity"]
    assert made["run_monitoring"].pop("start_timeout_seconds") > 300  # an image of ten gigabytes is pulled first
    assert {name: made[name] for name in own} == own
    assert made.keys() - own.keys() == {
        *("schedule_storage", "run_storage", "event_log_storage", "run_launcher", "run_coordinator"),
    }


@pytest.fixture
def a_run(in_a_pod, tmp_path):
    """The Kubernetes job that Dagster would start for a run with these values and tags."""
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "none",
        "contexts": [{"name": "none", "context": {"cluster": "none", "user": "none"}}],
        "clusters": [{"name": "none", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "none", "user": {}}],
    }
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(kubeconfig))

    def started(values, tags):
        kind = resolve_to_config_type(dagster_k8s.K8sRunLauncher.config_type())
        config = {**launcher_config(values), "load_incluster_config": False, "kubeconfig_file": str(path)}
        launcher = dagster_k8s.K8sRunLauncher(**process_config(kind, config).value)
        context = launcher.get_container_context_for_run(dg.DagsterRun(job_name="any", tags=tags))
        job = construct_dagster_k8s_job(
            context.get_k8s_job_config(job_image="clipcov-assets:1", run_launcher=launcher),
            args=["dagster"],
            job_name="any",
            user_defined_k8s_config=context.run_k8s_config,
        )
        return job.spec.template.spec

    return started


def test_a_run_is_a_pod_that_has_the_settings_the_token_the_template_and_no_gpu(a_run):
    pod = a_run(VALUES, {})
    (container,) = pod.containers
    sources = {(one.config_map_ref or one.secret_ref).name for one in container.env_from}
    assert sources == {"clipcov-settings", "clipcov-store", "clipcov-dagster-pipeline-env"}
    secrets = {one.name: one.value_from.secret_key_ref for one in container.env if one.value_from}
    assert secrets["RAY_AUTH_TOKEN"].name == "clipcov-ray" and secrets["RAY_AUTH_TOKEN"].key == "auth_token"
    assert secrets["DAGSTER_PG_PASSWORD"].name == "clipcov-postgres"
    assert GPU not in container.resources.limits
    mounts = {one.mount_path for one in container.volume_mounts}
    assert {"/opt/clipcov/var", "/dev/shm", str(Path(SETTINGS["data"]["CLIPCOV_RAY_JOB"]).parent)} <= mounts
    assert Path(SETTINGS["data"]["CLIPCOV_RAY_JOB"]).name in KUSTOMIZATION["configMapGenerator"][0]["files"]
    assert pod.service_account_name == "clipcov-dagster" and pod.security_context.run_as_user == 10001


def test_without_ray_every_run_holds_a_gpu_and_computes_itself(a_run):
    pod = a_run(WITH_GPU, {})
    (container,) = pod.containers
    assert container.resources.limits == {"memory": "64Gi", GPU: "1"}
    assert {one.name: one.value for one in container.env}["CLIPCOV_COMPUTE"] == "local"
    assert [one.key for one in pod.tolerations] == [GPU]
    assert "RAY_AUTH_TOKEN" in {one.name for one in container.env}


def test_one_run_asks_for_more_by_its_tag(a_run):
    tag = '{"container_config": {"resources": {"limits": {"memory": "128Gi"}}}}'
    (container,) = a_run(VALUES, {"dagster-k8s/config": tag}).containers
    assert container.resources.limits["memory"] == "128Gi" and container.resources.requests["cpu"] == "2"


@BOTH
def test_kubernetes_knows_each_field_that_the_values_hand_to_it(values):
    (code,) = values["dagster-user-deployments"]["deployments"]
    launcher = values["runLauncher"]["config"]["k8sRunLauncher"]
    kinds = {
        "envConfigMaps": "list[V1ConfigMapEnvSource]",
        "envSecrets": "list[V1SecretEnvSource]",
        "resources": "V1ResourceRequirements",
        "podSecurityContext": "V1PodSecurityContext",
        "securityContext": "V1SecurityContext",
        "volumeMounts": "list[V1VolumeMount]",
        "volumes": "list[V1Volume]",
        "readinessProbe": "V1Probe",
    }
    for place in (code, launcher, values["dagsterDaemon"], values["dagsterWebserver"]):
        for name in kinds.keys() & place.keys():
            value = (
                {key: one for key, one in place[name].items() if key != "enabled"}
                if name.endswith("Probe")
                else place[name]
            )
            assert strangers(value, kinds[name], name) == []
    assert strangers(launcher["runK8sConfig"]["containerConfig"], "V1Container") == []
    assert strangers(launcher["runK8sConfig"]["podSpecConfig"], "V1PodSpec") == []


def test_dagster_runs_our_image_where_the_volume_and_the_code_are():
    (code,) = VALUES["dagster-user-deployments"]["deployments"]
    (ours,) = KUSTOMIZATION["images"]
    for place in (code, VALUES["dagsterDaemon"], VALUES["dagsterWebserver"]):
        assert (place["image"]["repository"], place["image"]["tag"]) == (ours["newName"], ours["newTag"])
    assert "/" not in ours["newName"] and "/" not in VALUES["postgresql"]["image"]["repository"]
    port = VALUES["dagsterWebserver"]["service"]["port"]
    assert VALUES["dagsterWebserver"]["readinessProbe"]["httpGet"]["port"] == port
    assert SETTINGS["data"]["CLIPCOV_DAGSTER_UI"].endswith(f":{port}")
    user = re.search(r"useradd .*--uid (\d+)", (REPOSITORY / "deploy/Containerfile").read_text())[1]
    written = re.findall(r"runAsUser: (\d+)", "".join(path.read_text() for path in FILES))
    assert set(written) == {user, "999"}  # ours, and that of Postgres


# What they share


def test_no_secret_is_in_a_file_and_each_that_is_named_is_explained():
    assert not [one for one in [*OBJECTS, JOB, CLUSTER] if one["kind"] == "Secret"]
    assert not [name for name in SETTINGS["data"] if SECRET.search(name)]
    for place, container in containers():
        for one in container.get("env", ()):
            if SECRET.search(one["name"]):
                assert one.keys() == {"name", "valueFrom"} and one["valueFrom"].keys() == {"secretKeyRef"}, place
    text = "".join(path.read_text() for path in FILES)
    named = set(re.findall(r"secretRef: \{name: ([\w-]+)|secretKeyRef: \{name: ([\w-]+)|[sS]ecretName: ([\w-]+)", text))
    named = {name for names in named for name in names if name}
    named |= {one["name"] for one in VALUES["dagster-user-deployments"]["deployments"][0]["envSecrets"]}
    explained = re.findall(r"^#   (clipcov-\w+) ", (KUBERNETES / "settings.yaml").read_text(), re.MULTILINE)
    assert named == set(explained)
    assert VALUES["generatePostgresqlPasswordSecret"] is False


def test_what_is_referred_to_is_there():
    there = {(one["kind"], one["metadata"]["name"]) for one in OBJECTS} | {("ConfigMap", "clipcov-ray-job")}
    text = "".join(path.read_text() for path in FILES)
    for name in re.findall(r"claimName: ([\w-]+)", text):
        assert ("PersistentVolumeClaim", name) in there
    for name in re.findall(r"(?:configMapRef|configMap): \{name: ([\w-]+)", text):
        assert ("ConfigMap", name) in there
    assert ("ServiceAccount", VALUES["global"]["serviceAccountName"]) in there
    assert ("Service", VALUES["postgresql"]["postgresqlHost"]) in there
    tracking = re.fullmatch(r"http://([\w-]+):5000", SETTINGS["data"]["MLFLOW_TRACKING_URI"])[1]
    assert ("Service", tracking) in there
    for one in OBJECTS:
        if one["kind"] == "Service":
            (pod,) = (
                other["spec"]["template"]
                for other in OBJECTS
                if other["kind"] in ("Deployment", "StatefulSet")
                and other["metadata"]["name"] == one["metadata"]["name"]
            )
            assert one["spec"]["selector"] == pod["metadata"]["labels"]
            assert one["spec"]["ports"][0]["port"] == pod["spec"]["containers"][0]["ports"][0]["containerPort"]


def test_dagster_may_do_with_ray_jobs_what_pipes_does():
    (role,) = (one for one in OBJECTS if one["kind"] == "Role")
    may = {(resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}
    assert {
        ("rayjobs", "create"),
        ("rayjobs", "delete"),
        ("rayjobs/status", "get"),
        ("rayclusters/status", "get"),
    } <= may
    assert {rule["apiGroups"][0] for rule in role["rules"]} == {JOB["apiVersion"].partition("/")[0]}


def test_postgres_makes_the_databases_that_it_makes_elsewhere():
    (sql,) = (one["data"] for one in OBJECTS if one["metadata"]["name"] == "clipcov-postgres-databases")
    assert sql["databases.sql"] == (REPOSITORY / "deploy/postgres/databases.sql").read_text()
    assert f"CREATE DATABASE {VALUES['postgresql']['postgresqlDatabase']};" in sql["databases.sql"]
    (server,) = (one for place, one in containers() if place == "clipcov-postgres")
    user = {one["name"]: one.get("value") for one in server["env"]}["POSTGRES_USER"]
    assert user == VALUES["postgresql"]["postgresqlUsername"]


def test_the_settings_are_strings_and_mean_one_bucket_whose_client_is_in_the_image():
    data = SETTINGS["data"]
    assert all(isinstance(value, str) for value in data.values())
    assert {value.split("/")[2] for value in data.values() if "://" in value and not value.startswith("http")} == {
        "clipcov"
    }
    assert data["MLFLOW_ARTIFACTS_DESTINATION"].startswith("s3:")
    assert re.search(r"pip install .*\[postgres,ray,kubernetes\]", (REPOSITORY / "deploy/Containerfile").read_text())
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert any(one.startswith("boto3") for one in extras["kubernetes"])
    assert (data["CLIPCOV_COMPUTE"], data["CLIPCOV_RAY_ADDRESS"]) == ("ray", "kubernetes")


@pytest.mark.skipif(shutil.which("systemctl") is None, reason="needs systemctl")
def test_machines_of_a_cluster_start_ray_when_they_boot_though_they_have_no_dagster(tmp_path):
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    units = [Path(shutil.copy(path, tmp_path / "etc/systemd/system")).name for path in sorted(RAY.glob("*.service"))]
    subprocess.run(["systemctl", f"--root={tmp_path}", "enable", *units], check=True, capture_output=True)
    booted = tmp_path / "etc/systemd/system/multi-user.target.wants"
    assert sorted(path.name for path in booted.iterdir()) == units


def test_mlflow_for_a_cluster_keeps_the_files_of_trainings_itself_and_is_told_where_to_listen_by_clipcov_env():
    ours, cluster = (
        re.findall(r"^ExecStart=(.*)$", path.read_text(), re.MULTILINE)
        for path in (REPOSITORY / "deploy/systemd/clipcov-mlflow.service", RAY / "mlflow.conf")
    )
    assert cluster[0] == "" and len(cluster) == 2  # systemd: instead of the unit's own
    assert "--no-serve-artifacts" in ours[0] and " --serve-artifacts" in cluster[1]
    assert "--host" not in cluster[1] and "--allowed-hosts" not in cluster[1]
    page = (REPOSITORY / "docs/operations.md").read_text()
    assert all(f"{name}=" in page for name in ("MLFLOW_HOST", "MLFLOW_SERVER_ALLOWED_HOSTS"))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_understands_the_units_of_ray_beside_the_others(tmp_path):
    shutil.copytree(REPOSITORY / "deploy/systemd", tmp_path / "systemd")
    units = [shutil.copy(path, tmp_path / "systemd") for path in sorted(RAY.glob("*.service"))]
    for path in (tmp_path / "systemd").glob("*.service"):  # the programs are not in /opt here
        path.write_text(re.sub(r"^(ExecStart\w*)=\S+", r"\1=/bin/sh", path.read_text(), flags=re.MULTILINE))
    found = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, timeout=60)
    assert (found.returncode, found.stderr) == (0, "")


def of_machines():
    lines = [line for line in (RAY / "ray.env.example").read_text().splitlines() if not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def test_ray_tries_a_part_that_had_no_memory_a_few_times_and_not_for_ever():
    (name,) = (name for name in SETTINGS["data"] if "oom" in name)
    assert int(SETTINGS["data"][name]) == int(of_machines()[name]) > 0
    ray = pytest.importorskip("ray")
    assert name.encode() in (Path(ray.__file__).parent / "_raylet.so").read_bytes(), "Ray has no such setting"


def test_machines_without_kubernetes_ask_for_the_token_too_and_find_our_python():
    told = of_machines()
    assert told["RAY_AUTH_MODE"] == "token" and told["RAY_AUTH_TOKEN_PATH"].startswith("/")
    assert not [name for name in told if SECRET.search(name) and not name.endswith("_PATH")]
    for path in RAY.glob("*.service"):
        assert "EnvironmentFile=/opt/clipcov/deploy/ray/ray.env" in path.read_text()
        assert "Environment=PATH=/opt/clipcov/.venv/bin:" in path.read_text()
        assert set(re.findall(r"\$\{(\w+)}", path.read_text())) <= told.keys()
