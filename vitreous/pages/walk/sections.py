"""The stages of the page, from the image to its classes."""

from dataclasses import dataclass

from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image

from vitreous.data.preprocessing import Preprocessing
from vitreous.explain.attention_maps import readout_name
from vitreous.explain.embeddings import embedding_filters, pixel_filters
from vitreous.pages.walk import pictures, words
from vitreous.pages.walk.blocks import Block, block_html, percent
from vitreous.pages.walk.data import FIRST, Choice, Strip, similarity, strips
from vitreous.pages.walk.packing import Maps, signed
from vitreous.pages.walk.parts import bars, captioned, facts, numbers_text, part, section, strip_row, view
from vitreous.pages.walk.values import BlockValues, Walk, probabilities, probe_attention
from vitreous.support.text import html_text

COMPONENTS = 28  # as in Figure 7
PRODUCTS = 6  # filters that the chosen patch is multiplied with
CHANNELS = 8  # of a stem's feature map
PREFIXES = 6  # tokens in front that are shown
CLASSES = 5


@dataclass(frozen=True, eq=False)
class Page:
    """What the page tells.

    Attributes:
        walk: the pass.
        name: of the model, for people.
        image: the photo, decoded.
        preprocessing: what made the model's input of it.
        pixels: that input, as bytes.
        class_names: in the order of the logits; None where there are none.
        fresh: whether the weights are random.
        choice: the patch that is chosen first.
        maps: attention, packed.
        blocks: what each block does to each token.
    """

    walk: Walk
    name: str
    image: Image.Image
    preprocessing: Preprocessing
    pixels: UInt8[ndarray, "channels height width"]
    class_names: tuple[str, ...] | None
    fresh: bool
    choice: Choice
    maps: Maps
    blocks: list[BlockValues]

    def class_name(self, number: int) -> str:
        """A class for people."""
        return f"class {number}" if self.class_names is None else self.class_names[number]


def sections(page: Page) -> list[tuple[str, str, str]]:
    """The stages there are in this model: for each its id, its short name, and its HTML."""
    made = [
        ("image", "image", image_section),
        ("stem", "ResNet stem", stem_section),
        ("patches", "patches", patches_section),
        ("projection", "projection", projection_section),
        ("prefix", "class token" if page.walk.model.config.prefix_tokens == 1 else "more tokens", prefix_section),
        ("positions", "positions", positions_section),
        ("encoder", "encoder", encoder_section),
        ("norm", "norm", norm_section),
        ("head", "head", head_section),
    ]
    found: list[tuple[str, str, str]] = []
    for name, title, make in made:
        html = make(page, str(len(found) + 1))
        if html:
            found.append((name, title, html))
    return found


def image_section(page: Page, number: str) -> str:
    """The photo as it was given, and as the model sees it."""
    p = page.preprocessing
    low = min(-mean / std for mean, std in zip(p.mean, p.std, strict=True))
    high = max((1 - mean) / std for mean, std in zip(p.mean, p.std, strict=True))
    spread = f"a number from {low:.3g} to {high:.3g}".replace("-", "−")
    text = words.STAGES["image"].format(how=p.summary().partition(", mean")[0], range=spread)
    given = f'<img src="{pictures.original(page.image)}" alt="the photo as it was given">'
    size = "×".join(map(str, page.pixels.shape[1:]))
    channels = "1 channel" if len(page.pixels) == 1 else f"{len(page.pixels)} channels"
    figures = captioned(given, f"the photo: {page.image.height}×{page.image.width} pixels", "given")
    seen = '<span class="view photo plain" role="img" aria-label="the photo as the model sees it"></span>'
    figures += captioned(seen, f"what the model sees: {size} pixels, {channels}")
    content = f'<div class="pair">{figures}</div>\n{facts(page.walk.stages[""], "image")}'
    return section("image", number, "The image", text, content)


def stem_section(page: Page, number: str) -> str:
    """The hybrid's ResNet as one stage; nothing for other models."""
    stage = page.walk.stages.get("stem")
    if stage is None:
        return ""
    features = page.walk.value("stem")
    height, width = (
        v // page.walk.model.config.patch_size[i] for i, v in enumerate(page.walk.model.config.token_stride)
    )
    text = words.STAGES["stem"].format(channels=len(features), height=height, width=width)
    shown = "".join(
        captioned(view(pictures.channel_picture(one), f"channel {i} of the feature map", "flat"), f"channel {i}")
        for i, one in enumerate(features[:CHANNELS])
    )
    return section("stem", number, "The ResNet stem", text, f'<div class="heads">{shown}</div>\n{facts(stage, "stem")}')


def patches_section(page: Page, number: str) -> str:
    """The grid to choose from, and the chosen patch."""
    walk, c, choice = page.walk, page.walk.model.config, page.choice
    (rows, columns), (height, width) = walk.grid, c.patch_size
    hybrid = c.stem_blocks is not None
    values = walk.stages["patch_embedding:patches"]
    assert values.output_shape is not None
    text = words.STAGES["patches"].format(
        what="feature map" if hybrid else "image",
        count=rows * columns,
        height=height,
        width=width,
        unit="cells" if hybrid else "pixels",
        values=f"{values.output_shape[-1]:,}",
        order="row by row" if c.stem_channels == 1 else "channel by channel, row by row",
    )
    first = walk.value("patch_embedding:patches")[choice.place, :FIRST].tolist()
    content = (
        '<div class="chooser">\n<div class="picker photo" data-picker="large" role="img" '
        'aria-label="the photo as a grid of patches"></div>\n'
        '<div class="chosen-patch">\n'
        f"<h3>The chosen patch: <span data-patch-name>({choice.row}, {choice.column})</span></h3>\n"
        f'<div class="planes">{patch_pictures(page)}</div>\n'
        f'<p>Flattened, x<sub>p</sub>: <span class="digits" data-values="patches">{numbers_text(first)}</span></p>\n'
        '<p class="soft">Rows and columns count from 0. Click a patch here or on any other picture. By keyboard: the '
        "arrow keys on the grid, Home and End for the ends of a row, with Ctrl for the first and the last patch"
        f"{', C for the class token and back' if c.class_token else ''}.</p>\n</div>\n</div>\n"
    )
    return section("patches", number, "The patches", text, content + facts(values, "patches"))


def patch_pictures(page: Page) -> str:
    """The chosen patch enlarged, and its channels one by one."""
    c, place = page.walk.model.config, (page.choice.row, page.choice.column)
    whole = pictures.crop(page.pixels, place, c.token_stride)
    found = captioned(view(whole, "the chosen patch, enlarged", "flat stride", patch="all"), "enlarged")
    if len(page.pixels) == 1 or c.stem_blocks is not None:
        return found
    for i, name in enumerate(("red", "green", "blue")):
        channel = page.pixels * 0
        channel[i] = page.pixels[i]
        picture = pictures.crop(channel, place, c.token_stride)
        found += captioned(view(picture, f"its {name} channel", "flat stride", patch=i), name)
    return found


def projection_section(page: Page, number: str) -> str:
    """The filters, and what the chosen patch gives with some of them."""
    walk, c = page.walk, page.walk.model.config
    hybrid = c.stem_blocks is not None
    token = walk.value("patch_embedding")[page.choice.place]
    products = "".join(
        f"<li>{product_picture(page, i)}<b>filter {i}</b>"
        f'<span class="digits" data-value="{i}">{value:.2f}</span></li>'.replace(">-", ">−")
        for i, value in enumerate(token[:PRODUCTS].tolist())
    )
    components = embedding_filters(walk.model, COMPONENTS).components
    shown = "".join(view(pictures.filter_picture(one), f"component {i}", "flat") for i, one in enumerate(components))
    source = "filters of the stem's first convolution" if hybrid else f"{c.width} filters"
    found = strips(walk)["embedded"]
    content = (
        f'<ul class="products">{products}<li class="soft">… {c.width} in all</li></ul>\n'
        f'<div class="strips">{place_strip(page, "x<sub>p</sub>E", "embedded", found)}</div>\n'
        f"{strips_key(found.steps.shape[1], c.width)}{facts(walk.stages['patch_embedding.projection'], 'projection')}"
        f"<h3>What the filters look like</h3>\n<p>{words.STAGES['filters'].format(source=source)}</p>\n"
        f'<div class="filters">{shown}</div>\n'
    )
    return section("projection", number, "The projection", words.STAGES["projection"].format(width=c.width), content)


def product_picture(page: Page, number: int) -> str:
    """One filter, where it can be seen."""
    if page.walk.model.config.stem_blocks is not None:
        return ""
    weights = pixel_filters(page.walk.model)[number]
    return view(pictures.filter_picture(weights), f"filter {number}", "flat stride")


def place_strip(page: Page, name: str, kind: str, strip: Strip) -> str:
    """A strip of the chosen place's numbers, and where its colors end."""
    steps = strip.steps[page.choice.place]
    name = f"{name}<small>±{strip.scale:.2g}</small>"
    return strip_row(name, pictures.strip(steps), pictures.strip_size(len(steps)), "its numbers as colors", strip=kind)


def strips_key(shown: int, width: int) -> str:
    """What the colors of a strip mean."""
    part = "" if shown == width else f" The first {shown} of {width} numbers are shown."
    return (
        '<p class="soft key">Each small field is one number: <span class="scale signed" role="presentation"></span> '
        f"blue below 0, orange above; ± says where the colors end.{part}</p>\n"
    )


def prefix_section(page: Page, number: str) -> str:
    """The tokens in front of the patches; nothing where there are none."""
    model, c = page.walk.model, page.walk.model.config
    names = words.prefix_names(c)
    stage = next((s for s in page.walk.trace.boxes if s.kind == "cat"), None)
    if stage is None:
        return ""
    tokens = [t for t in (model.class_token, model.distillation_token, model.registers) if t is not None]
    values = [row for token in tokens for row in token.detach()[0].float().cpu()]
    drawn = ""
    for name, row in list(zip(names, values, strict=True))[:PREFIXES]:
        steps = signed(row)[1]
        drawn += strip_row(name, pictures.strip(steps), pictures.strip_size(len(steps)), f"{name}: its numbers")
    rest = f'<p class="soft">and {len(names) - PREFIXES} more</p>\n' if len(names) > PREFIXES else ""
    text = words.STAGES["prefix"].format(names=", ".join(names), why=words.why_prefix(c))
    title = "The class token" if names == ["class token"] else "Tokens in front"
    content = f'<div class="strips">{drawn}</div>\n{rest}{facts(stage, "prefix")}'
    return section("prefix", number, title, text, content)


def positions_section(page: Page, number: str) -> str:
    """What says where a patch was."""
    walk, c = page.walk, page.walk.model.config
    stage = walk.stages.get("position_embedding")
    alike = similarity(walk)
    if stage is None or alike is None:
        kind = "positions: relative" if c.position_embedding == "relative" else "positions: none"
        told = "" if stage is None else facts(stage, "relative")
        return section("positions", number, "Positions", words.STAGES[kind], told)
    text = words.STAGES["positions"].format(kind=words.position_kind(c))
    if c.position_site != "stem":
        text = words.STAGES["positions: inside"]
    picture = pictures.heat(alike.maps[page.choice.place])
    label = "how alike the chosen place's position is to each place"
    caption = f"from {alike.low:.2f} to {alike.high:.2f}, the chosen place itself is 1".replace("-", "−")
    found = strips(walk)
    names = {"embedded": "x<sub>p</sub>E", "positions": "+ E<sub>pos</sub>", "summed": "= z<sub>0</sub>"}
    drawn = "".join(place_strip(page, names[kind], kind, strip) for kind, strip in found.items())
    drawn += strips_key(found["embedded"].steps.shape[1], c.width)
    shown = captioned(view(picture, label, "flat grid pick", map="similarity"), caption, "mean")
    content = f'<div class="beside">{shown}<div class="strips">{drawn}</div></div>\n{facts(stage, "positions")}'
    return section("positions", number, "Positions", text, content)


def encoder_section(page: Page, number: str) -> str:
    """All blocks."""
    walk, c = page.walk, page.walk.model.config
    coarse = words.coarse_text(page.maps.keys, page.maps.queries)
    before = [("encoder.pre_norm", "pre_norm"), ("encoder:add", "positions in the encoder")]
    steps = "".join(part(walk.stages[path], places) for path, places in before if path in walk.stages)
    last_is_short = len(page.blocks[-1].norms) < walk.tokens
    reads = readout_name(c) if last_is_short else ""
    blocks = "".join(
        block_html(Block(i, walk, page.maps, page.choice, values, reads if i == c.depth - 1 else ""))
        for i, values in enumerate(page.blocks)
    )
    content = (
        f'{facts(walk.stages["encoder"], "encoder")}<p class="note">{f"{words.key_text(c)} {coarse}".strip()}</p>\n'
        '<p class="js"><button type="button" data-open>Open all blocks</button></p>\n'
        f"{steps}{blocks}"
    )
    return section("encoder", number, "The encoder", words.STAGES["encoder"].format(depth=c.depth), content)


def norm_section(page: Page, number: str) -> str:
    """The final norm, where it belongs to the encoder."""
    stage = page.walk.stages.get("encoder.norm")
    if stage is None:
        return ""
    return section("norm", number, "The last norm", words.STAGES["norm"], facts(stage, "norm"))


def head_section(page: Page, number: str) -> str:
    """Pooling, classifier and classes."""
    walk, model = page.walk, page.walk.model
    pooling = type(model.head.pooling).__name__
    steps = [("head.pooling", pooling), ("head.norm", "head norm"), ("head.hidden", "hidden")]
    steps += [("head.classifier", "classifier"), ("head.distillation", "distillation")]
    parts = [
        part(walk.stages[path], places, pooled_figure(page) if path == "head.pooling" else "")
        for path, places in steps
        if path in walk.stages
    ]
    text = words.STAGES["head" if model.head.classifier is not None else "head: none"]
    return section(
        "head", number, "The head", text, f"{facts(walk.stages['head'], 'head')}{''.join(parts)}{classes(page)}"
    )


def pooled_figure(page: Page) -> str:
    """The one vector, and for attention pooling where its probe looks."""
    scale, steps = signed(page.walk.value("head.pooling"))
    name = f"one vector<small>±{scale:.2g}</small>"
    row = strip_row(name, pictures.strip(steps), pictures.strip_size(len(steps)), "its numbers as colors")
    return f'{probe_figure(page)}<div class="strips">{row}</div>\n'


def probe_figure(page: Page) -> str:
    """Where the probe of attention pooling looks."""
    weights = probe_attention(page.walk)
    if weights is None:
        return ""
    patches = weights[:, page.walk.model.config.prefix_tokens :].unflatten(1, page.walk.grid)
    shown = "".join(
        captioned(view(pictures.heat((one / one.max()).sqrt()), f"head {i} of the probe", "photo"), f"head {i}")
        for i, one in enumerate(patches)
    )
    return f'<div class="heads">{shown}</div>\n'


def likeliest(page: Page) -> list[tuple[str, float]]:
    """The likeliest classes with their probabilities; none without a classifier."""
    found = probabilities(page.walk)
    if found is None:
        return []
    top = found.topk(min(CLASSES, len(found)))
    return [(page.class_name(i), p) for p, i in zip(top.values.tolist(), top.indices.tolist(), strict=True)]


def classes(page: Page) -> str:
    """The likeliest classes as bars."""
    found = likeliest(page)
    if not found:
        return ""
    rows = [(html_text(name), p, percent(p)) for name, p in found]
    total = page.walk.model.config.num_classes
    note = f"The {len(found)} likeliest of {total:,} classes" if total > len(found) else "All classes"
    figure = f"{bars(rows, 'classes', most=1.0)}<figcaption>{note}.</figcaption>"
    return f'<h3>The classes</h3>\n<figure class="numbers">{figure}</figure>\n'
