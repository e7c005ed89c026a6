"""Columns of every Lance table, described once: the store writes these schemas and Dagster shows them.

Those of a whole pool, which is held in memory, are wide (`resources/text_columns.py`); stored they are as the others.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import pyarrow as pa

from resources.text_columns import narrow, wide

if TYPE_CHECKING:
    import dagster as dg


def _schema(**columns: tuple[pa.DataType, str]) -> pa.Schema:
    return pa.schema([pa.field(name, kind, metadata={"description": text}) for name, (kind, text) in columns.items()])


def schema_of(columns: Mapping[str, tuple[pa.DataType, str]], rows: pa.Schema) -> pa.Schema:
    """Schema of rows with some columns before theirs."""
    return pa.schema([*_schema(**columns), *rows])


UID = (pa.string(), "Stable id of the pair: the delivery's own, else a hash of image bytes and caption.")
RANK = (pa.int64(), "0 for the first pick; a subset is the head of this order.")
GAIN = (pa.float32(), "What the pick added to the method's objective, or its score.")
CLIP_SCORE = (pa.float64(), "Cosine of the pair's image and text under the proxy.")
CONTENT = (pa.binary(16), "blake2b-128 of image, caption and embeddings as delivered: equal content is one pair.")
LATENT_CLASS = (pa.int32(), "Zero-shot class of the pair under the proxy.")

EMBEDDINGS = ["image_embedding", "text_embedding"]
# Metadata of delivered embeddings: the version of the raw pairs that they belong to.
RAW_PAIRS_VERSION = "raw_pairs_version"
# Metadata of embeddings and latent classes: the proxy that they were made with.
PROXY_SHA256 = "proxy_sha256"
PLACE = {
    "file": (pa.string(), "File of the delivery: the tar, the table or the image."),
    "key": (pa.string(), "Key of the pair's members in its tar; null where there is no tar."),
    "row": (pa.int64(), "Row in its table, 0 for the first; null where there is no table."),
}
RAW_PAIRS = _schema(
    uid=UID,
    caption=(pa.string(), "Text of the pair as delivered."),
    image=(pa.large_binary(), "Encoded image as delivered; null where the delivery brought embeddings only."),
    **PLACE,
    bytes=(pa.int64(), "Size of the encoded image in bytes."),
    content=CONTENT,
)
QUARANTINE = _schema(
    **PLACE,
    uid=(pa.string(), "Its uid where one could be read."),
    reason=(pa.string(), "Why it was set aside, in one word of the documented list."),
    detail=(pa.string(), "What was seen."),
)


def delivered_embeddings_schema(width: int) -> pa.Schema:
    """Schema of the embeddings that a delivery brought, in the order of its raw pairs."""
    return _schema(
        uid=UID,
        image_embedding=(pa.list_(pa.float16(), width), "Unit row of the image, as delivered."),
        text_embedding=(pa.list_(pa.float16(), width), "Unit row of the caption, as delivered."),
    )


def embeddings_schema(width: int) -> pa.Schema:
    """Schema of the embeddings of one crawl; `width` is the proxy's embedding width d."""
    return _schema(
        uid=UID,
        content=CONTENT,
        image_embedding=(pa.list_(pa.float16(), width), "Unit row of the proxy's image encoder."),
        text_embedding=(pa.list_(pa.float16(), width), "Unit row of the proxy's text encoder."),
        clip_score=CLIP_SCORE,
    )


def latent_classes_schema(width: int) -> pa.Schema:
    """Schema of the pairs of one crawl in the order of their latent classes, with the proxy's embeddings."""
    return _schema(
        uid=UID,
        latent_class=LATENT_CLASS,
        margin=(pa.float32(), "Cosine to the best class minus cosine to the second best."),
        clip_score=CLIP_SCORE,
        image_embedding=(pa.list_(pa.float16(), width), "Unit row of the proxy's image encoder."),
        text_embedding=(pa.list_(pa.float16(), width), "Unit row of the proxy's text encoder."),
    )


def class_embeddings_schema(width: int) -> pa.Schema:
    """Schema of the latent classes' own text embeddings."""
    return _schema(
        latent_class=LATENT_CLASS,
        name=(pa.string(), "Class name."),
        embedding=(pa.list_(pa.float32(), width), "Unit mean of the class's prompts under the proxy."),
    )


POOL = wide(
    _schema(
        uid=UID,
        crawl=(pa.string(), "Oldest crawl that holds the pair; its copy is the one used."),
        latent_class=LATENT_CLASS,
        clip_score=CLIP_SCORE,
    )
)


def cross_products_schema(width: int) -> pa.Schema:
    """Schema of the additive sum of outer products of images and captions, one row an image dimension."""
    return _schema(
        image_dimension=(pa.int32(), "Dimension of the image embedding."),
        products=(pa.list_(pa.float64(), width), "Sum over pairs of it times each dimension of the text embedding."),
    )


def statistics_schema(width: int) -> pa.Schema:
    """Schema of the additive statistics of a crawl or a pool, one row a latent class."""
    return _schema(
        latent_class=LATENT_CLASS,
        count=(pa.int64(), "Pairs of the class."),
        image_sum=(pa.list_(pa.float64(), width), "Sum of the class's image embeddings."),
        text_sum=(pa.list_(pa.float64(), width), "Sum of the class's text embeddings."),
    )


CLASS_RANKING = wide(
    _schema(
        uid=UID,
        latent_class=LATENT_CLASS,
        position=(pa.int64(), "0 for the first pick inside the class."),
        # Rounded gains would tie where exact ones do not, and the merge of the classes compares them.
        gain=(pa.float64(), "What the pick added to the objective, given the picks of its class before it."),
    )
)
RANKING = wide(_schema(uid=UID, rank=RANK, gain=GAIN))
REASONS = {
    "partner": (pa.string(), "Pair before it whose image is most similar, which makes it a duplicate; its uid."),
    "entry": (pa.string(), "Metadata entry in the caption that let the pair in."),
}


def ranking_schema(reasons: Iterable[str]) -> pa.Schema:
    """Schema of a ranking with what its method knows of each pick."""
    return wide(_schema(uid=UID, rank=RANK, gain=GAIN, **{reason: REASONS[reason] for reason in reasons}))


CURVE = _schema(
    seed=(pa.int64(), "Seed of the training: initial weights and the order of the pairs."),
    samples_seen=(pa.int64(), "Pairs trained on so far, counting repeats."),
    loss=(pa.float64(), "CLIP loss of the batch."),
    learning_rate=(pa.float64(), "Learning rate of the step."),
    samples_per_second=(pa.float64(), "Throughput of the step."),
)
CHECKPOINT = {
    "crawl": (pa.string(), "Newest crawl of the pool."),
    "method": (pa.string(), "Selection method, or `full`."),
    "fraction": (pa.float64(), "Share of the pool trained on."),
}
TRAININGS = _schema(
    **CHECKPOINT,
    seed=(pa.int64(), "Decides the initial weights and the order of the pairs."),
    pairs=(pa.int64(), "Pairs trained on."),
    architecture=(pa.string(), "open_clip's name."),
    recipe=(pa.string(), "How it was trained, as JSON."),
    recipe_hash=(pa.string(), "Equal where architecture and recipe are equal."),
    steps=(pa.int64(), "Optimizer steps."),
    samples_seen=(pa.int64(), "Pairs over all steps, counting repeats."),
    epochs=(pa.float64(), "Samples seen over pairs."),
    warmup_share=(pa.float64(), "Warm-up over all samples; from 1 on the training never left its warm-up."),
    max_learning_rate=(pa.float64(), "Highest learning rate of a step."),
    last_learning_rate=(pa.float64(), "Learning rate of the last step."),
    loss=(pa.float64(), "Mean loss of the last epoch."),
    seconds=(pa.float64(), "Time of the training, over all runs that it took."),
    samples_per_second=(pa.float64(), "Samples seen over seconds."),
    device=(pa.string(), "Where it ran."),
    devices=(pa.int32(), "How many of them."),
    precision=(pa.string(), "Of the products."),
    weights=(pa.string(), "Where the weights are."),
    sha256=(pa.string(), "Of the weights."),
    mlflow_run_id=(pa.string(), "MLflow run of the training; null where MLflow could not be reached."),
)
PREDICTIONS = _schema(
    evaluation_set=(pa.string(), "Name of the evaluation set."),
    seed=(pa.int64(), "Seed of the training whose checkpoint is scored."),
    task=(pa.string(), "classification, image_to_text (find an image's caption) or text_to_image."),
    key=(pa.string(), "Key of the image in its shard; of a caption, followed by # and its number."),
    label=(pa.int32(), "True class; in retrieval the number of the image among the images of the set."),
    predicted=(pa.int32(), "Class with the highest cosine; in retrieval the image, or the image of the caption."),
    rank_of_label=(pa.int32(), "0 when the true one came first; below 5 counts for acc5 and recall at 5."),
)
SCORES = _schema(
    **CHECKPOINT,
    pairs=(pa.int64(), "Pairs trained on."),
    seeds=(pa.int32(), "Trainings with seeds of their own; values are means over them."),
    evaluation_set=(pa.string(), "Name of the evaluation set."),
    metric=(
        pa.string(),
        "acc1, acc5, mean_per_class_recall, or text_recall_at_k and image_recall_at_k for k 1, 5, 10.",
    ),
    is_main=(pa.bool_(), "Whether it is the metric that the set is known by."),
    value=(pa.float64(), "The metric, between 0 and 1."),
    low=(pa.float64(), "Lower end of the 95 % bootstrap interval over images."),
    high=(pa.float64(), "Upper end of the 95 % bootstrap interval over images."),
    seed_deviation=(pa.float64(), "Standard deviation over seeds; null where there is one seed."),
    chance=(pa.float64(), "What guessing would reach."),
    above_chance=(pa.float64(), "(value - chance) / (1 - chance): 0 is guessing, 1 is perfect."),
    images=(pa.int64(), "Images of the set."),
)
GROUPS = _schema(
    **CHECKPOINT,
    group=(pa.string(), "Name of a group of evaluation sets."),
    sets=(pa.int32(), "Evaluation sets that belong to it."),
    value=(pa.float64(), "Mean of the main metrics of all of its sets; null where one is missing."),
    low=(pa.float64(), "Lower end of its 95 % bootstrap interval over the images of each set."),
    high=(pa.float64(), "Upper end of its 95 % bootstrap interval over the images of each set."),
    seed_deviation=(pa.float64(), "Standard deviation over seeds; null where there is one seed."),
    reason=(pa.string(), "Why there is no value; null where there is one."),
)
CLASS_RECALLS = _schema(
    **CHECKPOINT,
    evaluation_set=(pa.string(), "Name of the evaluation set."),
    label=(pa.int32(), "Class."),
    name=(pa.string(), "Its name."),
    images=(pa.int64(), "Its images."),
    recall=(pa.float64(), "Share of them that come out right, mean over seeds."),
)
DIFFERENCES = _schema(
    crawl=(pa.string(), "Newest crawl of the pool."),
    fraction=(pa.float64(), "Share of the pool trained on."),
    method=(pa.string(), "Selection method."),
    other=(pa.string(), "The method that it is compared with, at the same fraction."),
    evaluation_set=(pa.string(), "Name of the evaluation set."),
    images=(pa.int64(), "Images that both were scored on."),
    seeds=(pa.int32(), "Trainings of each whose hits are averaged."),
    difference=(pa.float64(), "acc1 of the method minus that of the other, image by image."),
    low=(pa.float64(), "Lower end of its 95 % interval."),
    high=(pa.float64(), "Upper end of its 95 % interval."),
    p_value=(
        pa.float64(),
        "Of a difference at least as large by luck: exact McNemar test, or sign flips with several seeds.",
    ),
    adjusted_p_value=(pa.float64(), "The same for all comparisons of the crawl together (Holm)."),
)


def trainings_table(method: str) -> str:
    """Name of the table that says how a method's checkpoints were trained, beside their curves."""
    return f"{method}_trainings"


def scores_table(method: str) -> str:
    """Name of the table that holds a method's scores, beside the per-image table of its scorecard."""
    return f"{method}_scores"


def groups_table(method: str) -> str:
    """Name of the table that holds a method's averages over groups of evaluation sets."""
    return f"{method}_groups"


def class_recalls_table(method: str) -> str:
    """Name of the table that holds the recall of every class."""
    return f"{method}_class_recalls"


def column_schema(schema: pa.Schema) -> "dg.TableSchema":
    """The schema as Dagster's Columns panel shows it."""
    import dagster as dg  # worker processes need the schemas above, and start faster without it

    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=field.name,
                type=str(field.type),
                description=(field.metadata or {}).get(b"description", b"").decode(),
            )
            for field in narrow(schema)
        ]
    )
