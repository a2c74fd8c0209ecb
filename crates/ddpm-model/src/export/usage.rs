//! The part of the model card that says how to use the files.

use ddpm_spec::Variance;

use super::contents::Format;
use crate::model::Model;
use crate::steps::{self, DEFAULT_SAMPLING_STEPS};

const TENSORS: &str = "`model.safetensors` holds the parameters by name, f32 and row-major, and `config.json` \
                       describes the network and its diffusion process: `betas` are those of t = 0 to T - 1, and the \
                       network embeds t times `time_scale`. Images are in [-1, 1].\n";

const WITHOUT_VARIANCE: &str = "\n`ddim` is the same network without the channels of its learned variance, for \
                                schedulers that have no use for them.\n";

/// How to use an export of `model` in the folder `name`, in Markdown.
pub(super) fn usage(model: &Model, format: Format, name: &str) -> String {
    if format == Format::Safetensors {
        return TENSORS.into();
    }
    let has_ddim = model.diffusion.spec().variance == Variance::LearnedRange;
    let program = match model.classes {
        None => pipelines(model, name, has_ddim),
        Some(classes) => conditional(model, name, classes),
    };
    program + if has_ddim { WITHOUT_VARIANCE } else { "" }
}

fn pipelines(model: &Model, name: &str, has_ddim: bool) -> String {
    let timesteps = model.diffusion.timesteps();
    let steps = steps::count(None, DEFAULT_SAMPLING_STEPS, timesteps);
    let draw = |count: usize, name: &str| match is_picture(model) {
        true => format!("pipe(num_inference_steps={count}).images[0].save(\"{name}.png\")"),
        false => format!("numpy.save(\"{name}.npy\", pipe(num_inference_steps={count}, output_type=\"np\").images[0])"),
    };
    let import = if is_picture(model) { "" } else { "import numpy\n" };
    let deterministic = if has_ddim { format!("{name}/ddim") } else { name.into() };
    format!(
        "```python\n{import}from diffusers import DDIMPipeline, DDPMPipeline\n\n\
         pipe = DDPMPipeline.from_pretrained({name:?})\n{}\n\
         pipe = DDIMPipeline.from_pretrained({deterministic:?})\n{}\n```\n",
        draw(timesteps, "ancestral"),
        draw(steps, "ddim")
    )
}

/// Whether images are grey or RGB, which diffusers saves as pictures; others are arrays.
fn is_picture(model: &Model) -> bool {
    matches!(model.network.image().channels, 1 | 3)
}

/// A loop, because diffusers' pipeline does not pass classes to the network.
fn conditional(model: &Model, name: &str, classes: i64) -> String {
    let [channels, height, width] = model.network.image().sizes();
    let learned = model.diffusion.spec().variance == Variance::LearnedRange;
    let (null, guided, note) = match model.null_class {
        None => (String::new(), String::new(), String::new()),
        Some(null) => (
            format!("nothing = torch.full_like(classes, {null})\nscale = 3.0\n"),
            if learned {
                // A learned variance is the conditional network's.
                format!(
                    "        free = pipe.unet(x, t, class_labels=nothing).sample[:, :{channels}]\n        \
                     out[:, :{channels}] = free + scale * (out[:, :{channels}] - free)\n"
                )
            } else {
                "        free = pipe.unet(x, t, class_labels=nothing).sample\n        \
                 out = free + scale * (out - free)\n"
                    .into()
            },
            format!(
                " Row {null} of the class table, one more than there are classes, means \"no class\": it gives the \
                 unconditional prediction, from which classifier-free guidance leads away. Scale 1 is no guidance."
            ),
        ),
    };
    format!(
        "The network takes the class of each image, 0 to {last}, which `DDPMPipeline` does not pass on, so drawing is \
         a loop.{note}\n\n\
         ```python\n{import}import torch\nfrom diffusers import DDPMPipeline\n\n\
         pipe = DDPMPipeline.from_pretrained({name:?})\n\
         classes = torch.arange({classes})\n{null}\
         x = torch.randn({classes}, {channels}, {height}, {width})\n\
         pipe.scheduler.set_timesteps({timesteps})\n\
         with torch.no_grad():\n    for t in pipe.scheduler.timesteps:\n        \
         out = pipe.unet(x, t, class_labels=classes).sample\n{guided}        \
         x = pipe.scheduler.step(out, t, x).prev_sample\n\
         images = (x / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()\n\
         {save}\n```\n",
        last = classes - 1,
        save = match is_picture(model) {
            true => "for number, image in enumerate(pipe.numpy_to_pil(images)):\n    image.save(f\"{number}.png\")",
            false => "numpy.save(\"images.npy\", images)",
        },
        import = if is_picture(model) { "" } else { "import numpy\n" },
        timesteps = model.diffusion.timesteps(),
    )
}
