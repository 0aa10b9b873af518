//! Draws a cell: body, membrane and nucleus, as the docs of the folder say.

/// Values of the background and amplitude of the noise.
const BACKGROUND: [f64; 3] = [14.0, 10.0, 12.0];
const NOISE: f64 = 8.0;
/// Brightness of the body, and how deep stripes cut into it.
const BODY: f64 = 150.0;
const STRIPES: f64 = 0.75;
/// Wavelength of the stripes, of the pitch.
const STRIPE: f64 = 0.11;
/// Width of the membrane, of the pitch.
const MEMBRANE: f64 = 0.035;
/// Green of a body, and what a stain adds.
const GREEN: f64 = 25.0;
const STAIN: f64 = 120.0;
/// Radius of the nucleus, of the cell's.
const NUCLEUS: f64 = 0.45;

/// A cell to draw; lengths in pixels.
pub(super) struct Shape {
    pub centre: [f64; 2],
    /// Geometric mean of the half axes.
    pub radius: f64,
    /// Long over short half axis.
    pub elongation: f64,
    pub angle: f64,
    /// Whether the body takes the green stain.
    pub stained: bool,
    /// 0..1.
    pub texture: f64,
    /// 0..1.
    pub nucleus: f64,
    pub pitch: f64,
}

/// An image in the making.
pub(super) struct Canvas {
    image: image::RgbImage,
}

impl Canvas {
    /// A dim background; `word` gives the noise of each pixel.
    pub(super) fn new(width: u32, height: u32, word: impl Fn(u32) -> u32) -> Canvas {
        let image = image::RgbImage::from_fn(width, height, |x, y| {
            let word = word(y * width + x);
            let noise = |channel: u32| f64::from((word >> (8 * channel)) & 0xff) / 255.0 * NOISE;
            image::Rgb(std::array::from_fn(|c| (BACKGROUND[c] + noise(c as u32)) as u8))
        });
        Canvas { image }
    }

    /// Lays a cell over what is there: the brighter value stays.
    pub(super) fn draw(&mut self, shape: &Shape) {
        let stretch = libm::sqrt(shape.elongation);
        let reach = shape.radius * stretch + 2.0;
        let green = GREEN + if shape.stained { STAIN } else { 0.0 };
        let (sin, cos) = (libm::sin(shape.angle), libm::cos(shape.angle));
        let span = |centre: f64, size: u32| {
            let from = (centre - reach).floor().max(0.0) as u32;
            from..((centre + reach).ceil().max(0.0) as u32).min(size)
        };
        for y in span(shape.centre[1], self.image.height()) {
            for x in span(shape.centre[0], self.image.width()) {
                let (dx, dy) = (f64::from(x) + 0.5 - shape.centre[0], f64::from(y) + 0.5 - shape.centre[1]);
                let (along, across) = (cos * dx + sin * dy, cos * dy - sin * dx);
                // distance from the centre as if the cell were round
                let round = libm::sqrt((along / stretch).powi(2) + (across * stretch).powi(2));
                let edge = |distance: f64| (0.5 - distance).clamp(0.0, 1.0);
                let body = edge(round - shape.radius);
                let stripes = 0.5 + 0.5 * libm::cos(std::f64::consts::TAU * along / (STRIPE * shape.pitch));
                let membrane = edge((round - shape.radius).abs() - 0.5 * MEMBRANE * shape.pitch - 0.5);
                let nucleus = edge(round - NUCLEUS * shape.radius);
                let values = [
                    body * BODY * (1.0 - STRIPES * shape.texture * stripes),
                    membrane * 190.0 + body * green,
                    nucleus * (50.0 + 200.0 * shape.nucleus),
                ];
                let pixel = self.image.get_pixel_mut(x, y);
                for (held, value) in pixel.0.iter_mut().zip(values) {
                    *held = (*held).max(value.clamp(0.0, 255.0) as u8);
                }
            }
        }
    }

    pub(super) fn into_image(self) -> image::RgbImage {
        self.image
    }
}
