"""Some samples of a packed set, for a captioner to be trained on or to speak of."""

from dataclasses import dataclass, replace

from aaca.data.scenegraph.batch import GraphItem
from aaca.data.scenegraph.graph import SceneGraph
from aaca.data.scenegraph.store import PackedGraphs
from aaca.data.scenegraph.vocabulary import Words


@dataclass
class Part:
    """The samples `rows` of a packed set; one row may come several times."""

    packed: PackedGraphs
    rows: list[int]

    @property
    def words(self) -> Words:
        """The vocabulary of the whole set."""
        return self.packed.words

    def __len__(self) -> int:
        return len(self.rows)

    def item(self, i: int) -> GraphItem:
        """Sample `i` of the part."""
        return replace(self.packed.item(self.rows[i]), row=i)

    def name(self, i: int) -> str:
        """Its name."""
        return self.packed.name(self.rows[i])

    def phrase(self, i: int) -> str:
        """Its caption."""
        return self.packed.phrase(self.rows[i])

    def graph(self, i: int) -> SceneGraph:
        """Its graph."""
        return self.packed.graph(self.rows[i])

    def references(self) -> dict[str, list[str]]:
        """Of the samples of the part."""
        known = self.packed.references()
        return {self.name(i): known[self.name(i)] for i in range(len(self))}
