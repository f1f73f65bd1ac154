"""The section of a recipe that says what is trained where it is not the whole model. Descriptions are documentation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from inspo_hub.recipe.sections import Section

DEFAULT_RANK = 16
_OWN = "the base adapter's own"


def _targets_kind(value: object) -> str:
    return "text" if isinstance(value, str) else "list"


Targets = Annotated[
    Annotated[Literal["auto"], Tag("text")] | Annotated[tuple[str, ...], Tag("list")], Discriminator(_targets_kind)
]


class AdapterSection(Section):
    """An adapter (LoRA) that is trained on a frozen base; the reference is the base with the adapter switched off."""

    type: Literal["lora"] = Field("lora", description="Kind of adapter.")
    r: int | None = Field(None, ge=1, description=f"Rank; null: {DEFAULT_RANK}, or {_OWN}.")
    alpha: float | None = Field(
        None,
        gt=0,
        description=f"What the adapter adds is scaled by alpha/r (alpha/√r with rsLoRA); null: 2r, or {_OWN}.",
    )
    dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Only 0: with noise in the policy its log-ratios do not start at 0, and losses would depend on how "
        "the pairs are dealt to processes.",
    )
    target_modules: Targets | None = Field(
        None,
        description="Linear layers that get an adapter, by the ends of their names (`q_proj`); auto: all but the "
        f"output layer; null: auto, or {_OWN}.",
    )
    use_dora: bool | None = Field(
        None, description=f"DoRA: length and direction of each weight are trained apart; null: false, or {_OWN}."
    )
    use_rslora: bool | None = Field(
        None, description=f"rsLoRA: scale by alpha/√r, for large ranks; null: false, or {_OWN}."
    )
    quantize: Literal["nf4"] | None = Field(
        None, description="nf4: QLoRA, the base's matrices in 4 bits (needs bitsandbytes); null: as they are."
    )
    base_adapter: str | None = Field(
        None,
        min_length=1,
        description="An existing LoRA adapter of the base model to go on with, Hub id or local folder; the reference "
        "is then the base with that adapter as it was. null: a new adapter.",
    )
    base_adapter_revision: str | None = Field(
        None, description="Branch, tag or commit of base_adapter; null: `main`, pinned at start."
    )

    @property
    def rank(self) -> int:
        """Rank of a new adapter."""
        return self.r or DEFAULT_RANK

    @property
    def scale_numerator(self) -> float:
        """alpha of a new adapter."""
        return self.alpha if self.alpha is not None else 2.0 * self.rank

    @property
    def targets(self) -> tuple[str, ...] | None:
        """Name ends of the layers of a new adapter; None: all linear layers but the output layer."""
        return self.target_modules if isinstance(self.target_modules, tuple) else None
