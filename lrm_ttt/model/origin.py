"""Where weights come from that were not trained with this program, and on what terms. Free of torch."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Origin:
    """The source of a model's weights: it goes into `config.json`, and stays with whatever is made from the model."""

    program: str
    file: str
    sha256: str
    licence: str

    def notice(self) -> str:
        """Return the text that goes with the weights."""
        return (
            f"These weights are those of {self.file}, converted by lrm-ttt, or were trained further from them.\n\n"
            f"Source: {self.program}\nSHA-256 of the source file: {self.sha256}\n"
            f"Licence of the source: {self.licence}\n\nThe licence of lrm-ttt itself does not cover these weights.\n"
        )
