// Around a detector on a microcontroller: what goes into the model, and what its answer means. Include it after
// model.h, in one source file. docs/monitor/edge.md says where centre, scale and usual come from.
#ifndef EDGEWISE_DETECTOR_H_
#define EDGEWISE_DETECTOR_H_

#include <math.h>
#include <stdint.h>

#define DETECTOR_FLOOR 0.05f  // least spread of a window; as runtimes/windows.py has it
#define DETECTOR_CLIP 5.0f    // no normalised value lies beyond

typedef struct {  // of the channel's profile
  float centre, scale;
} DetectorChannel;

typedef struct {  // of one window, in units of the channel's scale
  float mean, spread;
} DetectorWindow;

// The last MODEL_WINDOW points of a channel, in its own units, as the model takes them.
static DetectorWindow detector_input(const float *points, DetectorChannel channel, int8_t *input) {
  DetectorWindow window = {0.0f, 0.0f};
  for (int n = 0; n < MODEL_WINDOW; n++) window.mean += (points[n] - channel.centre) / channel.scale;
  window.mean /= MODEL_WINDOW;
  for (int n = 0; n < MODEL_WINDOW; n++) {
    float moved = (points[n] - channel.centre) / channel.scale - window.mean;
    window.spread += moved * moved;
  }
  window.spread = fmaxf(sqrtf(window.spread / MODEL_WINDOW), DETECTOR_FLOOR);
  for (int n = 0; n < MODEL_WINDOW; n++) {
    float value = ((points[n] - channel.centre) / channel.scale - window.mean) / window.spread;
    value = fminf(fmaxf(value, -DETECTOR_CLIP), DETECTOR_CLIP);
    float step = rintf(value / MODEL_INPUT_SCALE) + MODEL_INPUT_ZERO_POINT;
    input[n] = (int8_t)fminf(fmaxf(step, -128.0f), 127.0f);
  }
  return window;
}

// One value of the answer in the channel's own units. The first MODEL_WINDOW rebuild the window, the last
// MODEL_PATCH are the points that should come next.
static float detector_expected(int8_t answer, DetectorWindow window, DetectorChannel channel) {
  float value = (float)(answer - (MODEL_OUTPUT_ZERO_POINT)) * MODEL_OUTPUT_SCALE;
  return (value * window.spread + window.mean) * channel.scale + channel.centre;
}

// How far a point is from what was expected of it, in units of what is usual at that distance (profile.ahead).
static float detector_error(float point, float expected, float usual, DetectorChannel channel) {
  return fabsf(point - expected) / (channel.scale * usual);
}

#endif  // EDGEWISE_DETECTOR_H_
