package KeepsRules;

# The suite's own HTTP/2 breaks three rules that a server must enforce, and Gapura does; nginx lets them pass. Loaded before a
# file of the suite, this makes its clients and back ends keep them, so that the file can show everything else.

use warnings;
use strict;

use Test::Nginx::HTTP2;

no warnings 'redefine';

# RFC 7541, section 5.2: no more than seven bits of padding. The suite adds a whole byte to codes that end with one.

*Test::Nginx::HTTP2::huff = sub {
	my ($string) = @_;
	my $code = Test::Nginx::HTTP2::huff_code();
	my $bits = join '', map { $code->{$_} } split //, $string;
	return pack('B*', $bits . '1' x (-length($bits) % 8));
};

# RFC 9113, section 3.4: SETTINGS follow a client's preface. "Pure" clients send none unless the file does.

my $new = \&Test::Nginx::HTTP2::new;
my $raw_write = \&Test::Nginx::HTTP2::raw_write;

*Test::Nginx::HTTP2::new = sub {
	my ($class, $port, %extra) = @_;
	my $self = $new->(@_);
	$self->{owes_settings} = 1 if $self && $extra{pure} && !exists $extra{preface};
	return $self;
};

*Test::Nginx::HTTP2::raw_write = sub {
	my ($self, $message) = @_;
	if (delete $self->{owes_settings} && substr($message, 3, 1) ne "\x4") {
		$message = pack("x3Cx5", 0x4) . $message;
	}
	return $raw_write->($self, cut($message));
};

# RFC 9113, section 4.2: no frame is larger than the other side has announced. The suite does not look; nginx announces the
# largest size there is, Gapura leaves it at 16,384.

sub cut {
	my ($message) = @_;
	my $size = 16384;
	my ($out, $rest) = ('', $message);
	while (length $rest >= 9) {
		my ($high, $low, $type, $flags, $sid) = unpack 'CnCCN', $rest;
		my $length = $high << 16 | $low;
		# Half frames, and what is no frame, stay what they are.
		return $message if length $rest < 9 + $length;
		my $payload = substr $rest, 9, $length;
		$rest = substr $rest, 9 + $length;
		# DATA and HEADERS without padding and priority; the rest of HEADERS goes on in CONTINUATION.
		if ($length <= $size || $type > 1 || $flags & 0x28) {
			$out .= pack('CnCCN', $high, $low, $type, $flags, $sid) . $payload;
			next;
		}
		my $last = $type ? 0x4 : 0x1;
		my $next = $type ? 0x9 : 0x0;
		for (my $at = 0; $at < $length; $at += $size) {
			my $piece = substr $payload, $at, $size;
			my $set = $at ? ($type ? 0 : $flags) : $flags;
			$set = $at + $size < $length ? $set & ~$last : $set & ~$last | $flags & $last;
			$out .= pack('CnCCN', 0, length $piece, $at ? $next : $type, $set, $sid) . $piece;
		}
	}
	return $out . $rest;
}

1;
