"""Class names and the templates that turn them into captions.

Data enters as text with the placeholder `{c}`; a validated, hashable `Prompts` leaves.
"""

import hashlib
import json
from dataclasses import dataclass

PLACEHOLDER = "{c}"


@dataclass(frozen=True)
class Prompts:
    """Class names in the order of the labels, and templates that hold `{c}`.

    Names may repeat: ImageNet-1k has "missile" and "sunglasses" twice.

    Raises:
        ValueError: No class name, no template, a blank class name, or a template without `{c}`.
    """

    class_names: tuple[str, ...]
    templates: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.class_names:
            raise ValueError("prompts hold no class name; give at least one")
        if not self.templates:
            raise ValueError(f"prompts hold no template; give at least one, such as '{PLACEHOLDER}'")
        for row, name in enumerate(self.class_names):
            if not name.strip():
                raise ValueError(f"class name {row} is blank; give every class a name")
        for row, template in enumerate(self.templates):
            if PLACEHOLDER not in template:
                raise ValueError(f"template {row} is {template!r}; write {PLACEHOLDER} where the class name goes")

    @property
    def sha256(self) -> str:
        """Hash of names and templates, in order; equal exactly when the prompts are equal."""
        text = json.dumps([self.class_names, self.templates])
        return hashlib.sha256(text.encode()).hexdigest()


def fill(template: str, class_name: str) -> str:
    """Return the template with the class name in place of `{c}`; other braces stay as they are."""
    return template.replace(PLACEHOLDER, class_name)


def imagenet_prompts() -> Prompts:
    """Return ImageNet-1k's 1,000 class names with OpenAI's 80 templates, as open_clip ships them.

    Source: Radford et al. 2021, arXiv:2103.00020, section 3.1.4.
    """
    # Imported here so that reading prompts from files does not load torch.
    from open_clip import IMAGENET_CLASSNAMES, OPENAI_IMAGENET_TEMPLATES

    return Prompts(
        class_names=tuple(IMAGENET_CLASSNAMES),
        templates=tuple(template(PLACEHOLDER) for template in OPENAI_IMAGENET_TEMPLATES),
    )
