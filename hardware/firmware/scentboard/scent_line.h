// The line encoder of the scent dialect, for the board and for the host's tests.
//
// Plain C++11: no Arduino, no heap, no globals. docs/serial-protocol.md describes the line;
// hardware/protocol.py decodes it, and hardware/encoding.py writes the same bytes.
#ifndef SCENT_LINE_H
#define SCENT_LINE_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

namespace scent {

const int kChannels = 12;
const int kMqParts = 3;
const int kLatestVersion = 2;

// The longest number is 15 characters ("-1.06175423e+15") and a comma; 15 of them, a head of
// at most 30 characters, and "*ABCD\n" with its terminating zero make 277.
const size_t kMaxLineBytes = 288;

// One reading, in the order of the channel table: NO2, C2H5OH, VOC, CO (counts), Alcohol, LPG,
// Benzene (ppm), Temperature (degC), Pressure (hPa), Humidity (%RH), Gas_Resistance (kOhm),
// Altitude (m). NAN where a channel is absent.
struct Reading {
  uint32_t seq;
  uint32_t device_ms;
  float values[kChannels];
  float mq_volts[kMqParts];  // at the pins of MQ-135, MQ-9, MQ-3; sent by version 2 only
};

// CRC-16/CCITT-FALSE: polynomial 0x1021, start 0xFFFF, nothing reflected, nothing inverted.
inline uint16_t crc16(const char *data, size_t length) {
  uint16_t crc = 0xFFFF;
  for (size_t i = 0; i < length; ++i) {
    crc = static_cast<uint16_t>(crc ^ (static_cast<uint16_t>(static_cast<uint8_t>(data[i])) << 8));
    for (int bit = 0; bit < 8; ++bit) {
      crc = static_cast<uint16_t>((crc & 0x8000) ? (crc << 1) ^ 0x1021 : crc << 1);
    }
  }
  return crc;
}

// Writes the shortest decimal that reads back as the same float: whole numbers below 1e10 in
// full, others with the fewest of 6 to 9 significant digits; nothing for NAN, "inf" and "-inf".
// Returns the number of characters, or -1 if they do not fit.
inline int format_number(float value, char *out, size_t size) {
  if (size == 0) return -1;
  if (isnan(value)) {
    out[0] = '\0';
    return 0;
  }
  int length = 0;
  const double exact = static_cast<double>(value);
  if (isinf(value)) {
    length = snprintf(out, size, "%s", value > 0 ? "inf" : "-inf");
  } else if (fabs(exact) < 1e10 && floor(exact) == exact) {
    length = snprintf(out, size, "%.0f", exact);
  } else {
    char format[] = "%.6g";  // not "%.*g", which the C library of AVR controllers does not know
    for (int digits = 6; digits <= 9; ++digits) {
      format[2] = static_cast<char>('0' + digits);
      length = snprintf(out, size, format, exact);
      if (length < 0 || static_cast<size_t>(length) >= size) return -1;
      // Through double, as the host reads it.
      if (static_cast<float>(strtod(out, NULL)) == value) break;
    }
  }
  return (length < 0 || static_cast<size_t>(length) >= size) ? -1 : length;
}

// A text buffer that records whether everything fitted.
class LineBuffer {
 public:
  LineBuffer(char *out, size_t size) : out_(out), size_(size), length_(0), fits_(size > 0) {}

  void text(const char *characters, size_t count) {
    if (!fits_ || length_ + count >= size_) {
      fits_ = false;
      return;
    }
    memcpy(out_ + length_, characters, count);
    length_ += count;
    out_[length_] = '\0';
  }

  void number(float value) {
    char digits[24];
    const int count = format_number(value, digits, sizeof digits);
    if (count < 0) {
      fits_ = false;
      return;
    }
    text(",", 1);
    text(digits, static_cast<size_t>(count));
  }

  bool fits() const { return fits_; }
  size_t length() const { return length_; }
  const char *characters() const { return out_; }

 private:
  char *out_;
  size_t size_;
  size_t length_;
  bool fits_;
};

// Writes one line with its newline and a terminating zero into `out`. Returns its length without
// the zero, or 0 if the version does not exist or `size` is too small; kMaxLineBytes is enough.
inline size_t encode(const Reading &reading, int version, char *out, size_t size) {
  if (version < 1 || version > kLatestVersion) return 0;
  char head[40];
  const int head_length =
      snprintf(head, sizeof head, "$SCENT,%d,%lu,%lu", version,
               static_cast<unsigned long>(reading.seq),
               static_cast<unsigned long>(reading.device_ms));
  LineBuffer line(out, size);
  line.text(head, static_cast<size_t>(head_length));
  for (int channel = 0; channel < kChannels; ++channel) line.number(reading.values[channel]);
  if (version >= 2) {
    for (int part = 0; part < kMqParts; ++part) line.number(reading.mq_volts[part]);
  }
  if (!line.fits()) return 0;
  char tail[8];
  const unsigned crc = crc16(line.characters() + 1, line.length() - 1);  // all after the '$'
  const int tail_length = snprintf(tail, sizeof tail, "*%04X\n", crc);
  line.text(tail, static_cast<size_t>(tail_length));
  return line.fits() ? line.length() : 0;
}

}  // namespace scent

#endif  // SCENT_LINE_H
