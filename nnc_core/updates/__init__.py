"""Updates of a model: what changed, exactly or with loss, as a chain that starts from a base both ends have.

`UpdateEncoder` and `UpdateDecoder` work on arrays in memory, `write_update` and `PatchedModel` on models that are
fetched tensor by tensor. A `Chain` is the state that both ends keep; nothing else is remembered anywhere.
"""

from nnc_core.updates.batch_norm import fold_batch_norm, unfold_batch_norm
from nnc_core.updates.chain import Chain
from nnc_core.updates.decoder import Patch, UpdateDecoder
from nnc_core.updates.digest import Fingerprint, fingerprint, fingerprints, model_digest
from nnc_core.updates.encoder import UpdateEncoder
from nnc_core.updates.fold import fold, fold_exact, fold_onto
from nnc_core.updates.lossy import LossyOptions
from nnc_core.updates.manifest import Manifest
from nnc_core.updates.reader import PatchedModel, known_dimensions, manifest_of
from nnc_core.updates.state import load_chain, save_chain
from nnc_core.updates.writer import Predict, UpdateOptions, UpdateReport, write_update

__all__ = [
    "Chain",
    "Fingerprint",
    "LossyOptions",
    "Manifest",
    "Patch",
    "PatchedModel",
    "Predict",
    "UpdateDecoder",
    "UpdateEncoder",
    "UpdateOptions",
    "UpdateReport",
    "fingerprint",
    "fingerprints",
    "fold",
    "fold_batch_norm",
    "fold_exact",
    "fold_onto",
    "known_dimensions",
    "load_chain",
    "manifest_of",
    "model_digest",
    "save_chain",
    "unfold_batch_norm",
    "write_update",
]
