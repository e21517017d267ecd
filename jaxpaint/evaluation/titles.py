"""The metrics of tables, and what they are called there."""

TITLES = {
    "hole_l1": "L1 in the hole, share of the range",
    "l1": "L1, share of the range",
    "psnr": "PSNR, dB",
    "hole_psnr": "PSNR of the hole, dB",
    "ssim": "SSIM",
    "hole_ssim": "SSIM in the hole",
    "lpips": "LPIPS",
    "diversity": "diversity of samples, L1 in the hole",
    "kd_lite0": "kernel distance, EfficientNet-Lite0, times 1,000 (no KID)",
    "fd_lite0": "Frechet distance, EfficientNet-Lite0 (no FID)",
    "kid": "KID, times 1,000",
    "fid": "FID",
}
"""What tables call a metric."""
