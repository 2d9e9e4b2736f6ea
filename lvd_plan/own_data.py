"""What is said of somebody's own prompts and labels before anything is sampled."""

from lvd.data.labels import read_labels


def check_own_data(config, prompts, normal_prompts):
    """Check labels against prompts.

    Args:
        config: lvd.data.config.DataConfig.
        prompts, normal_prompts: [MagicTime.utils.prompts.Prompt].

    Returns:
        [line to print, ...].

    Raises:
        InputError: the label file and the prompts do not belong together.
    """
    labels = read_labels(config.label_file_dir, rows=len(prompts))
    return [
        f"{name}: {len(column)} videos" for name, column in zip(labels.categories, labels.columns)
    ]
