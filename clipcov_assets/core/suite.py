"""The evaluation sets that the field knows, and the groups that it averages over.

Names are CLIP_benchmark's. No torch here: the definitions may load it.

Sources: Joshi et al. 2024, arXiv:2403.12267, Tables 4 to 10; Gadre et al. 2023, arXiv:2304.14108, for main metrics;
CLIP_benchmark and Radford et al. 2021, arXiv:2103.00020, for class names and templates, of which only hashes are kept.
"""

from dataclasses import dataclass
from importlib.resources import files

ACCURACY, PER_CLASS, MEAN_RECALL = "acc1", "mean_per_class_recall", "mean_recall_at_1"
# What a prediction answers: which class, which caption of an image, which image of a caption.
CLASSIFICATION, IMAGE_TO_TEXT, TEXT_TO_IMAGE = "classification", "image_to_text", "text_to_image"

# 1,000 names with 80 templates; `prompts.imagenet_prompts` are these.
_IMAGENET = ("ab9302beb83fb6e2088871af4fb9b5f6d0934acd036318a013fa8888eeaece81",)


@dataclass(frozen=True)
class KnownSet:
    """An evaluation set that others report on.

    Attributes:
        name: Ours.
        title: As papers write it.
        folders: Names that it goes by, without a leading `wds_` and a trailing `_test`.
        main_metric: The metric that it is known by.
        prompts_sha256: `Prompts.sha256` of its published class names and templates, one for each order of the
            classes that is in use; empty where they are not known.
        imagenet_slice: Name of its classes among ImageNet-1k's, where it may come with all 1,000 names.
        images: How many it has; None where several splits of it are in use.
    """

    name: str
    title: str
    folders: tuple[str, ...]
    main_metric: str = ACCURACY
    prompts_sha256: tuple[str, ...] = ()
    imagenet_slice: str | None = None
    images: int | None = None


@dataclass(frozen=True)
class Group:
    """Evaluation sets that are averaged over: all of them or none.

    Attributes:
        name: Ours.
        title: As people say it.
        sets: Names of known sets.
    """

    name: str
    title: str
    sets: tuple[str, ...]


KNOWN_SETS: tuple[KnownSet, ...] = (
    KnownSet(
        "caltech101",
        "Caltech101",
        ("vtab-caltech101", "caltech101"),
        PER_CLASS,
        (
            "a53902b402c7676e7de3a6a91e8d212f1e9e91b569f0564068763de8fc09ba4b",  # in VTAB's order, as DataComp has it
            "02450d821737679abe473a90444c49e7d067b065fb0c0b5138e109eeb7c77769",  # in OpenAI's and torchvision's order
        ),
    ),
    KnownSet(
        "dtd",
        "DTD",
        ("vtab-dtd", "dtd"),
        prompts_sha256=("67a22e0cff59a6ce3f79020ae3ac27d137c2a026aa23aa212ff6aafac427ee22",),
        images=1_880,
    ),
    KnownSet(
        "food101",
        "Food101",
        ("food101",),
        prompts_sha256=("b7459e4ce5eb03d4ac806a13b838e3a77a71c008eff6832c4dd791ef5824f908",),
        images=25_250,
    ),
    KnownSet("imagenet1k", "ImageNet", ("imagenet1k",), prompts_sha256=_IMAGENET, images=50_000),
    KnownSet(
        "stl10",
        "STL10",
        ("stl10",),
        prompts_sha256=("63d6f6cf7abd4c3f775aa06a1365ef51629c407f38699aeaeb5de77c8309b927",),
        images=8_000,
    ),
    KnownSet(
        "sun397",
        "SUN397",
        ("sun397",),
        prompts_sha256=(
            "5f75049a5540eaaef3f7d47d358bad6e35535312ae4df85de23dc256a3ac3cdd",  # jail cell before jail indoor
            "237b54c03cfa1050913e032867e4bc36d376856a507f09b0a02bccf7beefe051",  # after it, as TFDS lists them
        ),
    ),
    KnownSet(
        "imagenet_sketch",
        "ImageNet-Sketch",
        ("imagenet_sketch", "imagenet-sketch"),
        prompts_sha256=_IMAGENET,
        images=50_889,
    ),
    KnownSet("imagenetv2", "ImageNet-V2", ("imagenetv2", "imagenet-v2"), prompts_sha256=_IMAGENET, images=10_000),
    KnownSet(
        "imagenet-a",
        "ImageNet-A",
        ("imagenet-a", "imagenet_a"),
        prompts_sha256=("f22b973a726ea7f8bb82ec7790cf6d81fecf5c4cbde679d6eb9c284425b2c9af",),
        imagenet_slice="a",
        images=7_500,
    ),
    KnownSet(
        "imagenet-r",
        "ImageNet-R",
        ("imagenet-r", "imagenet_r"),
        prompts_sha256=("6d01bbac52b89bcdc27f4684744277ef2e2fc6608499f9599c3fda115e12648e",),
        imagenet_slice="r",
        images=30_000,
    ),
    KnownSet(
        "imagenet-o",
        "ImageNet-O",
        ("imagenet-o", "imagenet_o"),
        prompts_sha256=("b371d4cf96e54edd0c333e2acf019f3ec02ef3c1798e778130baa7c59247a8bd",),
        images=2_000,
    ),
    KnownSet(
        "objectnet",
        "ObjectNet",
        ("objectnet",),
        prompts_sha256=("6e2eb4087d8adcb1c00f4b39e7519df47c38021ad6426c6fbf6a5dc8b0730887",),
        images=18_574,
    ),
    # The rest of what DataComp reads in this layout, and CLIP_benchmark's retrieval sets.
    KnownSet("cars", "Stanford Cars", ("cars",)),
    KnownSet("cifar10", "CIFAR-10", ("cifar10", "vtab-cifar10")),
    KnownSet("cifar100", "CIFAR-100", ("vtab-cifar100", "cifar100")),
    KnownSet("clevr_closest_object_distance", "CLEVR Distance", ("vtab-clevr_closest_object_distance",)),
    KnownSet("clevr_count_all", "CLEVR Counts", ("vtab-clevr_count_all",)),
    KnownSet("country211", "Country211", ("country211",)),
    KnownSet("eurosat", "EuroSAT", ("vtab-eurosat", "eurosat")),
    KnownSet("fgvc_aircraft", "FGVC Aircraft", ("fgvc_aircraft",), PER_CLASS),
    KnownSet("flowers", "Oxford Flowers-102", ("vtab-flowers", "flowers"), PER_CLASS),
    KnownSet("gtsrb", "GTSRB", ("gtsrb",)),
    KnownSet("kitti_closest_vehicle_distance", "KITTI Vehicle Distance", ("vtab-kitti_closest_vehicle_distance",)),
    KnownSet("mnist", "MNIST", ("mnist",)),
    KnownSet("pcam", "PatchCamelyon", ("vtab-pcam", "pcam")),
    KnownSet("pets", "Oxford-IIIT Pet", ("vtab-pets", "pets"), PER_CLASS),
    KnownSet("renderedsst2", "Rendered SST2", ("renderedsst2",)),
    KnownSet("resisc45", "RESISC45", ("vtab-resisc45",)),
    KnownSet("svhn", "SVHN", ("vtab-svhn",)),
    KnownSet("voc2007", "Pascal VOC 2007", ("voc2007",)),
    KnownSet("flickr30k", "Flickr30k", ("flickr30k",), MEAN_RECALL),
    KnownSet("flickr8k", "Flickr8k", ("flickr8k",), MEAN_RECALL),
    KnownSet("mscoco_captions", "MSCOCO", ("mscoco_captions",), MEAN_RECALL),
)

SHIFTS = ("imagenet_sketch", "imagenetv2", "imagenet-a", "imagenet-r", "objectnet")
OTHERS = ("caltech101", "dtd", "food101", "stl10", "sun397")
GROUPS: tuple[Group, ...] = (
    Group("imagenet", "ImageNet", ("imagenet1k",)),
    Group("shift5", "the paper's five shifts", SHIFTS),
    Group("average11", "the paper's average over 11", (*OTHERS, "imagenet1k", *SHIFTS)),
    Group("shift6", "DataComp's six shifts", (*SHIFTS, "imagenet-o")),
    Group("others5", "the five without ImageNet", OTHERS),
)


def known_set(folder: str) -> KnownSet | None:
    """Return the set that goes by a folder's name; None where it is a set of one's own."""
    name = folder.lower().removeprefix("wds_").removesuffix("_test").replace("/", "-")
    return next((one for one in KNOWN_SETS if name in one.folders), None)


def slice_classes(name: str) -> tuple[int, ...]:
    """Return the classes of ImageNet-1k that a slice of it has, ascending: 200 for "a" and for "r".

    Source: Hendrycks et al. 2021, arXiv:1907.07174 (A) and arXiv:2006.16241 (R), as timm ships them.
    """
    indices = files("timm") / "data" / "_info" / f"imagenet_{name}_indices.txt"
    return tuple(int(line) for line in indices.read_text().split())
