"""timm families whose forward does more than call one module after the other.

Most timm trunks are chains of modules: what one gives is what the next one takes. Where it is not so, what lies
between the modules is written out, family by family: in model/vits.py where all blocks have one stride, in
model/pyramids.py where they do not. What a family says of itself is listed in model/family.py.

Nothing is taken on trust: model/trunk.py runs the parts and compares with timm's own forward, bit by bit.
"""

from timm.models.beit import Beit
from timm.models.cait import Cait
from timm.models.convit import ConVit as TimmConVit
from timm.models.efficientformer import EfficientFormer
from timm.models.eva import Eva
from timm.models.hiera import Hiera
from timm.models.hieradet_sam2 import HieraDet
from timm.models.levit import Levit
from timm.models.maxxvit import MaxxVit
from timm.models.mvitv2 import MultiScaleVit
from timm.models.naflexvit import NaFlexVit
from timm.models.pvt_v2 import PyramidVisionTransformerV2
from timm.models.swin_transformer_v2_cr import SwinTransformerV2Cr
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_relpos import VisionTransformerRelPos
from timm.models.vision_transformer_sam import VisionTransformerSAM
from timm.models.xcit import Xcit
from torch import nn

from perceptkit.model import pyramids, vits
from perceptkit.model.family import Family

CHAIN = Family()
FAMILIES: tuple[tuple[type[nn.Module], Family], ...] = (
    (VisionTransformer, vits.Vit()),
    (Eva, vits.EvaVit()),
    (Beit, vits.BeitVit()),
    (VisionTransformerRelPos, vits.RelPosVit()),
    (VisionTransformerSAM, vits.SamVit()),
    (NaFlexVit, vits.NaFlex()),
    (Cait, vits.CaitVit()),
    (Xcit, vits.XcitVit()),
    (TimmConVit, vits.ConVit()),
    (Hiera, pyramids.HieraVit()),
    (HieraDet, pyramids.Sam2Hiera()),
    (PyramidVisionTransformerV2, pyramids.PvtV2()),
    (MultiScaleVit, pyramids.MvitV2()),
    (SwinTransformerV2Cr, pyramids.SwinV2Cr()),
    (Levit, pyramids.LevitTokens()),
    (MaxxVit, pyramids.MaxVit()),
    (EfficientFormer, pyramids.EfficientFormers()),
)


_found: dict[type[nn.Module], Family] = {}
"""Of classes that were asked for: every step of every forward pass asks. No functools.cache: Dynamo warns of it."""


def family(model: nn.Module) -> Family:
    """How this model is taken apart."""
    found = _found.get(type(model))
    if found is None:
        found = next((found for kind, found in FAMILIES if isinstance(model, kind)), CHAIN)
        _found[type(model)] = found
    return found
